"""Frames and records on the pipes of process workers."""

import contextlib
import logging
import os
import random
import socket
import threading

import pytest

from prpc.workers import process_child
from prpc.workers.process_child import _PipeHandler
from prpc.workers.process_wire import Channel, FrameReader, Kind, Record, RecordReader, pack_frame, pack_record


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("piece", [1, 7, 1000, 1_000_000])
def test_frames_arrive_whole_however_the_stream_is_cut(pair, piece):
    ours, theirs = pair
    theirs.setblocking(False)
    random.seed(piece)
    wanted = [(Kind.CALL, random.randbytes(size)) for size in (0, 1, 5, 100, 0, 3000, 2)]
    stream = b"".join(b"".join(pack_frame(kind, body)) for kind, body in wanted)
    reader, found = FrameReader(), []
    for at in range(0, len(stream), piece):
        ours.sendall(stream[at : at + piece])
        with contextlib.suppress(BlockingIOError):
            while True:
                found += reader.read(theirs)
    assert [(kind, bytes(body)) for kind, body in found] == wanted
    ours.close()
    assert reader.read(theirs) is None


def test_a_stream_that_ends_inside_a_frame(pair):
    ours, theirs = pair
    reader = FrameReader()
    ours.sendall(b"".join(pack_frame(Kind.CALL, b"abc"))[:-1])
    assert reader.read(theirs) == []
    ours.close()
    assert reader.read(theirs) is None


def test_a_channel_carries_large_frames_from_several_threads(pair):
    ours, theirs = pair
    sender, receiver = Channel(ours), Channel(theirs)
    bodies = [bytes([number]) * 300_000 for number in range(8)]
    threads = [threading.Thread(target=sender.send, args=(Kind.VALUE, body)) for body in bodies]
    for thread in threads:
        thread.start()
    found = [receiver.receive() for _ in bodies]
    for thread in threads:
        thread.join()
    assert sorted(bytes(body) for _, body in found) == bodies


def test_a_channel_whose_other_end_is_gone(pair):
    ours, theirs = pair
    channel = Channel(ours)
    theirs.close()
    channel.send(Kind.VALUE, b"x")
    channel.send(Kind.VALUE, b"x" * 1_000_000)
    assert channel.receive() is None
    assert channel.receive() is None


def test_a_broken_connection_is_the_end_of_the_stream(pair):
    class Broken:
        def recv(self, size):
            raise ConnectionResetError

    assert Channel(Broken()).receive() is None


def test_a_record_made_while_sending_goes_out_behind(pair):
    """A finalizer may log at any moment, also in the thread that is sending."""
    ours, theirs = pair

    class Sock:
        def sendall(self, data):
            ours.sendall(data)
            if b"first" in data:
                channel.send(Kind.LOG, b"second")

    channel = Channel(Sock())
    channel.send(Kind.VALUE, b"first")
    receiver = Channel(theirs)
    assert receiver.receive() == (Kind.VALUE, b"first")
    assert receiver.receive() == (Kind.LOG, b"second")


def test_records_arrive_whole_however_the_stream_is_cut():
    stream = pack_record(Record.START, 1) + pack_record(Record.EXITED, 2**40, -9)
    for piece in (1, 5, 100):
        reader, found = RecordReader(), []
        for at in range(0, len(stream), piece):
            found += reader.feed(stream[at : at + piece])
        assert found == [(Record.START, 1, 0), (Record.EXITED, 2**40, -9)]


def test_a_log_record_that_cannot_be_made_is_reported_like_any_other(capsys):
    record = logging.LogRecord("name", logging.INFO, os.devnull, 1, "%d", ("no number",), None)
    _PipeHandler(Channel(None)).handle(record)
    assert "Logging error" in capsys.readouterr().err


def test_resident_bytes_where_proc_does_not_tell(monkeypatch):
    known = process_child._resident()

    def without_proc(*args):
        raise OSError

    monkeypatch.setattr(process_child, "open", without_proc, raising=False)
    assert process_child._resident() >= known // 2 > 0
