"""The inbox: keeps one gRPC stream open, in a thread of its own, and what came until it is asked for."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TypedDict

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from examples.messenger.proto import messenger_pb2, messenger_pb2_grpc

__all__ = ["MOST_KEPT", "Inbox", "Received", "iso_time", "nanoseconds"]

logger = logging.getLogger("examples.messenger")

#: Messages that are kept; the oldest go first.
MOST_KEPT = 100_000
#: Seconds between two attempts to open the stream.
OPEN_AGAIN_AFTER = 0.1


class Received(TypedDict):
    """A message as it goes into JSON."""

    author: str
    text: str
    #: In UTC, with nine fractional digits and a Z.
    sendTime: str


class Inbox:
    """Messages that have come and were not asked for. May be shared by threads."""

    def __init__(self, stub: messenger_pb2_grpc.MessengerServerStub) -> None:
        self._stub = stub
        #: Guards everything below.
        self._news = threading.Condition()
        self._kept: deque[Received] = deque(maxlen=MOST_KEPT)
        self._is_open = self._closed = False
        #: Time of the last message that came, in nanoseconds since 1970.
        self._last = 0
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run, name="messenger-inbox", daemon=True)

    def start(self) -> None:
        """Open the stream, and open it again whenever it ends."""
        self._thread.start()

    def close(self) -> None:
        """Close the stream."""
        with self._news:
            self._closed = True
            self._news.notify_all()
            call = self._call
        if call is not None:
            call.cancel()
        if self._thread.is_alive():
            self._thread.join(1)

    def flush(self) -> list[Received]:
        """The messages that have come since the last time."""
        with self._news:
            kept = list(self._kept)
            self._kept.clear()
            return kept

    def wait_open(self, seconds: float) -> bool:
        """Wait until the stream is open; False where it is not in time."""
        with self._news:
            return self._news.wait_for(lambda: self._is_open, seconds)

    def wait_for(self, send_time: int, seconds: float) -> bool:
        """Wait until the message of this time (nanoseconds since 1970) has come; False where it has not in time."""
        with self._news:
            return self._news.wait_for(lambda: self._last >= send_time or not self._is_open, seconds) and self._last >= send_time

    def _run(self) -> None:
        while not self._closed:
            try:
                self._read()
            except grpc.RpcError as exc:
                if not self._closed:
                    logger.info("the stream ended: %s", exc.details() if isinstance(exc, grpc.Call) else exc)
            with self._news:
                self._is_open = False
                self._news.notify_all()
                self._news.wait_for(lambda: self._closed, OPEN_AGAIN_AFTER)

    def _read(self) -> None:
        call = self._stub.ReadMessages(messenger_pb2.ReadMessagesRequest(), wait_for_ready=True)
        with self._news:
            self._call = call
            if self._closed:
                call.cancel()
        call.initial_metadata()  # it comes when the stream is open
        with self._news:
            self._is_open = call.is_active()
            self._news.notify_all()
        for message in call:
            received = Received(author=message.author, text=message.text, sendTime=iso_time(message.sendTime))
            with self._news:
                self._kept.append(received)
                self._last = nanoseconds(message.sendTime)
                self._news.notify_all()


def nanoseconds(timestamp: Timestamp) -> int:
    """Nanoseconds since 1970."""
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos


def iso_time(timestamp: Timestamp) -> str:
    """ISO 8601 in UTC with nine fractional digits, as in 2026-11-29T10:44:30.000000001Z."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(timestamp.seconds))}.{timestamp.nanos:09d}Z"
