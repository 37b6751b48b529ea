"""Framed JSON over TCP as its users run it: worker, gateway and client as processes over a real Redis and a real Kafka."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from examples.srpc import server_func, srpc_lab
from tests.examples.kv_kit import KINDS, PATIENCE, ROOT, Place, generated_stubs, place_on, stubs_in, until

pytestmark = pytest.mark.timeout(150)

WORKER, LAB = "examples.srpc.worker", "examples/srpc/srpc_lab.py"
ERROR = {"status": "ERROR"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Gateway:
    """The gateway as a process, at a port of its own."""

    def __init__(self, place: Place) -> None:
        self.place, self.port = place, free_port()
        self.start()

    def start(self) -> None:
        self.process = self.place.start(LAB, "SERVER", environ=self.environ())

        def listens() -> bool:
            assert self.process.poll() is None, "the gateway ended"
            try:
                self.connect().close()
            except ConnectionRefusedError:
                return False
            return True

        until(listens)

    def environ(self) -> dict[str, str]:
        return self.place.environ(SRPC_PORT=str(self.port))

    def stop(self) -> int:
        return self.place.stop(self.process)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def answer(self, sent: bytes) -> bytes:
        """All that comes back for these bytes until the gateway closes."""
        with self.connect() as conn:
            conn.sendall(sent)
            return rest_of(conn)

    def call(self, message: object) -> Any:
        return unframed(self.answer(framed(message)))

    def put(self, name: str, value: object) -> Any:
        return self.call({"func": "PUT", "params": {"obj": name, "val": value}})

    def get(self, name: str) -> Any:
        return self.call({"func": "GET", "params": {"obj": name}})["response"]["response"]["val"]

    def lab(self, mode: str) -> subprocess.CompletedProcess[str]:
        """The lab in another mode, to its end."""
        return lab(mode, self.environ())


def lab(mode: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, LAB, mode], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE)


def rest_of(conn: socket.socket) -> bytes:
    pieces = []
    while piece := conn.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def framed(message: object) -> bytes:
    payload = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack("<ii", 1, len(payload)) + payload


def unframed(reply: bytes) -> Any:
    """The one message of these bytes, whose header is checked."""
    version, length = struct.unpack("<ii", reply[:8])
    assert (version, length) == (1, len(reply) - 8)
    return json.loads(reply[8:])


@pytest.fixture(scope="module", params=KINDS)
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway with its worker, for the tests that stop neither."""
    with place_on(request.param, request) as place:
        place.serve(WORKER)
        yield Gateway(place)


@pytest.fixture(params=KINDS)
def alone(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway without a worker."""
    with place_on(request.param, request) as place:
        yield Gateway(place)


# -- frames ------------------------------------------------------------------------------------------------------------


def test_a_message_is_a_header_and_json() -> None:
    here, there = socket.socketpair()
    with here, there:
        srpc_lab.send_message(here, {"ü": 1})
        here.close()
        sent = rest_of(there)
    assert sent[:4] == b"\x01\0\0\0"
    assert struct.unpack("<i", sent[4:8])[0] == len(sent) - 8
    assert json.loads(sent[8:]) == {"ü": 1}


def test_a_message_is_received_from_any_pieces() -> None:
    here, there = socket.socketpair()
    with here, there, ThreadPoolExecutor(1) as thread:
        received = thread.submit(srpc_lab.recv_message, there)
        for byte in framed({"long": "x" * 1000}):
            here.send(bytes([byte]))
        assert received.result(PATIENCE) == {"long": "x" * 1000}


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (struct.pack("<ii", 2, 2) + b"{}", ValueError),
        (struct.pack("<ii", 1, -1), ValueError),
        (struct.pack("<ii", 1, 2**31 - 1), ValueError),
        (framed(b"{"), ValueError),
        (framed(b'"\xff"'), ValueError),
        (framed([1]), ValueError),
        (framed(b""), ValueError),
        (framed(b"[" * 200_000), ValueError),
        (b"", ConnectionError),
        (framed({})[:5], ConnectionError),
        (framed({"a": 1})[:-1], ConnectionError),
    ],
)
def test_a_message_that_cannot_be_read_is_an_error(frame: bytes, error: type[Exception]) -> None:
    here, there = socket.socketpair()
    with here, there, ThreadPoolExecutor(1) as thread:
        received = thread.submit(srpc_lab.recv_message, there)
        here.sendall(frame)
        here.shutdown(socket.SHUT_WR)
        with pytest.raises(error):
            received.result(PATIENCE)


# -- the gateway -------------------------------------------------------------------------------------------------------


def test_put_and_get(gateway: Gateway) -> None:
    assert gateway.call({"func": "GET", "params": {"obj": "pg"}}) == {
        "status": "OK",
        "response": {"func": "GET", "response": {"obj": "pg", "val": None}},
    }
    value = {"deep": [1, None, {"ü": "\ud800"}], "py/object": "os.system"}
    assert gateway.put("pg", value) == {
        "status": "OK",
        "response": {"func": "PUT", "response": {"obj": "pg", "response": "ok"}},
    }
    assert gateway.get("pg") == value


@pytest.mark.parametrize(
    "sent",
    [
        framed(b"not json"),
        framed(b'"\xff\xfe"'),
        framed(b""),
        framed([1, 2]),
        framed(b"[" * 200_000),
        framed(b'{"func": "PUT", "params": {"obj": "a", "val": ' + b"[" * 500 + b"]" * 500 + b"}}"),
        framed({"func": "PUT", "params": {"obj": "a"}}),
        framed({"func": "PUT", "params": {"val": 1}}),
        framed({"func": "GET", "params": {}}),
        framed({"func": "GET", "params": ["obj"]}),
        framed({"func": "GET", "params": None}),
        framed({"func": "GET", "params": {"obj": ["a"]}}),
        framed({"func": "GET", "params": {"obj": 1}}),
        framed({"func": "GET"}),
        framed({"params": {"obj": "a"}}),
        framed({"func": "get", "params": {"obj": "a"}}),
        framed({"func": "get_function_server", "params": {"obj": "a"}}),
        framed({"func": ["GET"], "params": {"obj": "a"}}),
        struct.pack("<ii", 2, 2) + b"{}",
        struct.pack("<ii", 0, 2) + b"{}",
        struct.pack(">ii", 1, 2) + b"{}",
        struct.pack("<ii", 1, -1) + b"{}" * 50_000,
        struct.pack("<ii", 1, -(2**31)),
        struct.pack("<ii", 1, 2**31 - 1) + b"{}" * 50_000,
    ],
)
def test_a_wrong_request_gets_an_error(gateway: Gateway, sent: bytes) -> None:
    assert unframed(gateway.answer(sent)) == ERROR


def test_a_request_comes_in_any_pieces(gateway: Gateway) -> None:
    with gateway.connect() as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed({"func": "PUT", "params": {"obj": "bytes", "val": 1}}):
            conn.send(bytes([byte]))
        assert unframed(rest_of(conn))["status"] == "OK"
    assert gateway.get("bytes") == 1


def test_a_connection_carries_one_message(gateway: Gateway) -> None:
    first, second = ({"func": "PUT", "params": {"obj": "one", "val": n}} for n in (1, 2))
    assert unframed(gateway.answer(framed(first) + framed(second)))["status"] == "OK"
    assert gateway.get("one") == 1


def test_a_large_object(gateway: Gateway) -> None:
    value = ["é" * 1_000_000, list(range(100_000))]
    assert gateway.put("large", value)["status"] == "OK"
    assert gateway.get("large") == value


def test_silent_and_broken_peers_hold_up_nobody(gateway: Gateway) -> None:
    frame = framed({"func": "PUT", "params": {"obj": "silent", "val": 1}})
    peers = [gateway.connect() for _ in range(60)]
    try:
        for number, peer in enumerate(peers):
            peer.sendall(frame[: (0, 3, 8, len(frame) - 1)[number % 4]])
        for peer in peers[::3]:
            peer.close()
        assert gateway.get("silent") is None
        assert gateway.put("silent", 2)["status"] == "OK"
    finally:
        for peer in peers:
            peer.close()
    assert gateway.get("silent") == 2


def test_many_at_once(gateway: Gateway) -> None:
    def work(number: int) -> bool:
        return gateway.put(f"many {number}", number)["status"] == "OK" and gateway.get(f"many {number}") == number

    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(work, range(100)))


def test_the_client_runs_its_test_cases(gateway: Gateway) -> None:
    done = gateway.lab("CLIENT")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "FAIL" not in done.stdout and done.stdout.count("ok  ") > 20


def test_both_brings_a_gateway_of_its_own(gateway: Gateway) -> None:
    done = lab("BOTH", gateway.place.environ(SRPC_PORT=str(free_port())))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "FAIL" not in done.stdout and done.stdout.count("ok  ") > 20


def test_the_committed_stubs_are_those_of_the_worker(gateway: Gateway, tmp_path: Path) -> None:
    assert generated_stubs(gateway.place, tmp_path) == stubs_in(Path(server_func.__file__))


def test_without_a_worker_the_answer_is_an_error_and_the_gateway_lives_on(alone: Gateway) -> None:
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda call: call(), [lambda: alone.put("a", 1), lambda: alone.put("b", 1)])) == [ERROR, ERROR]
    alone.place.serve(WORKER)
    assert alone.get("a") is None  # what was not answered in time does not run later
    assert alone.put("a", 2)["status"] == "OK"
    assert alone.get("a") == 2


@pytest.mark.real_redis
def test_the_gateway_ends_with_sigterm_and_takes_its_port_again(request: pytest.FixtureRequest) -> None:
    with place_on("redis", request) as place:
        place.serve(WORKER)
        gateway = Gateway(place)
        silent = gateway.connect()
        assert gateway.put("a", 1)["status"] == "OK"
        assert gateway.stop() == 0
        assert silent.recv(1) == b""
        silent.close()
        gateway.start()
        assert gateway.get("a") == 1


# -- without a broker --------------------------------------------------------------------------------------------------


def test_local_needs_neither_sockets_nor_broker(tmp_path: Path) -> None:
    """Run as a file by a Python that finds the project by that file alone."""
    (tmp_path / "sitecustomize.py").write_text("import socket\nsocket.socket.connect = socket.socket.bind = None\n")
    environ = {**os.environ, "PRPC_URL_BROKER": "redis://127.0.0.1:1/0", "PYTHONPATH": str(tmp_path)}
    done = lab("LOCAL", environ)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "FAIL" not in done.stdout and done.stdout.count("ok  ") > 20


def test_a_wrong_mode_is_refused() -> None:
    for words in ([], ["local"], ["LOCAL", "BOTH"]):
        assert srpc_lab.main(words) == 2


def test_the_port_is_4444_and_may_be_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SRPC_PORT", raising=False)
    assert srpc_lab.port() == 4444
    monkeypatch.setenv("SRPC_PORT", str(free_port()))
    with srpc_lab.open_listener() as listener:
        assert listener.getsockname() == ("0.0.0.0", srpc_lab.port())
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0


def test_a_failed_case_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert srpc_lab.test_cases(lambda call: {"status": "ERROR"}) is False
    assert "FAIL" in capsys.readouterr().out
