"""Framed JSON over TCP in front of a PRPC worker: `python3 examples/srpc/srpc_lab.py LOCAL|CLIENT|SERVER|BOTH`

A frame is two little-endian signed ints of 4 bytes, version and length of the payload, and the payload, a JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

if not __package__:  # run as a file: Python looks for modules beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.srpc import server_func, worker
from prpc import PRPCError

Message = dict[str, Any]

HEADER = struct.Struct("<ii")
VERSION = 1
#: Longest payload, in bytes. More is refused before it is read.
MAX_LENGTH = 16 * 1024 * 1024
ERROR: Message = {"status": "ERROR"}

#: Seconds that a silent peer is waited for.
PEER_TIMEOUT = 10.0
#: Seconds that the worker is waited for, and an attempt of a call that may be repeated.
CALL_TIMEOUT, ATTEMPT_TIMEOUT = 5.0, 1.0
#: Seconds that a peer has to close after its reply, and that a stopping gateway leaves to open connections.
LINGER = 1.0
#: Seconds before the gateway accepts again when it could not, for want of file descriptors, say.
ACCEPT_PAUSE = 0.05


def port() -> int:
    """The port of the gateway: 4444, or what SRPC_PORT says."""
    return int(os.environ.get("SRPC_PORT", "4444"))


# -- frames ------------------------------------------------------------------------------------------------------------


def send_message(conn: socket.socket, obj: Message) -> None:
    """Send an object as one frame."""
    payload = json.dumps(obj).encode()
    conn.sendall(HEADER.pack(VERSION, len(payload)) + payload)


def recv_message(conn: socket.socket) -> Message:
    """Receive one frame, in however many pieces it comes.

    Raises ValueError for a wrong version, a length below zero or above MAX_LENGTH, or what is no JSON object, and OSError
    where the peer closes or stops before the end.
    """
    version, length = HEADER.unpack(_receive(conn, HEADER.size))
    if version != VERSION or not 0 <= length <= MAX_LENGTH:
        raise ValueError(f"a frame of version {version} and {length} bytes cannot be read")
    payload = _receive(conn, length)
    try:
        message = json.loads(payload.decode())
    except RecursionError as exc:
        raise ValueError("the JSON is nested too deep") from exc
    if not isinstance(message, dict):
        raise ValueError("the payload is no JSON object")
    return message


def _receive(conn: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = conn.recv(min(size - len(received), 65536))
        if not piece:
            raise ConnectionError("the peer closed in the middle of a frame")
        received += piece
    return bytes(received)


# -- the two sides -----------------------------------------------------------------------------------------------------


def perform(call: Mapping[str, Any], put: Callable[[str, Any], str], get: Callable[[str], Any]) -> Message:
    """The reply to a call, whose work these functions do."""
    try:
        func, params = call["func"], call["params"]
        name = params["obj"]
        if not isinstance(name, str):
            return ERROR
        if func == "PUT":
            response = {"obj": name, "response": put(name, params["val"])}
        elif func == "GET":
            response = {"obj": name, "val": get(name)}
        else:
            return ERROR
    except (KeyError, TypeError, PRPCError):  # a field is missing, `params` is no object, or the worker did not answer
        return ERROR
    return {"status": "OK", "response": {"func": func, "response": response}}


def do_local_call(call: Message) -> Message:
    """The reply of the worker's functions in this process: a registered function is still a function."""
    return perform(call, worker.put, worker.get)


def do_remote_call(call: Message) -> Message:
    """The reply of the worker, called through PRPC."""
    put = server_func.put.options(timeout=CALL_TIMEOUT)
    get = server_func.get.options(timeout=CALL_TIMEOUT, attempt_timeout=ATTEMPT_TIMEOUT)
    return perform(call, lambda obj, val: put(obj, val).result(), lambda obj: get(obj).result())


def client_do_single_call(call: Message) -> Message:
    """The reply of the gateway on this machine, over a connection of its own. Raises as `recv_message`, and OSError."""
    with socket.create_connection(("127.0.0.1", port()), timeout=PEER_TIMEOUT) as conn:
        send_message(conn, call)
        return recv_message(conn)


def open_listener() -> socket.socket:
    """The gateway's socket; create_server sets SO_REUSEADDR."""
    return socket.create_server(("0.0.0.0", port()), backlog=128)


def server_program(listener: socket.socket | None = None) -> None:
    """Serve until SIGTERM, each connection on a thread of its own. `listener`: where it is open already."""
    exit_on_sigterm()
    threads: list[threading.Thread] = []
    with listener or open_listener() as listening:
        try:
            while True:
                try:
                    conn, _ = listening.accept()
                except OSError:
                    time.sleep(ACCEPT_PAUSE)
                    continue
                threads = [thread for thread in threads if thread.is_alive()]
                threads.append(threading.Thread(target=_serve, args=(conn,), daemon=True))
                threads[-1].start()
        finally:
            listening.close()
            end = time.monotonic() + LINGER
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))


def _serve(conn: socket.socket) -> None:
    with conn, suppress(OSError):
        conn.settimeout(PEER_TIMEOUT)
        try:
            reply = do_remote_call(recv_message(conn))
        except (ValueError, OSError):
            reply = ERROR
        send_message(conn, reply)
        _say_goodbye(conn)


def _say_goodbye(conn: socket.socket) -> None:
    """Read what is left: closing over unread bytes would reset the connection, and the peer might lose its reply."""
    conn.shutdown(socket.SHUT_WR)
    end = time.monotonic() + LINGER
    conn.settimeout(LINGER)
    while conn.recv(65536) and time.monotonic() < end:
        pass


def exit_on_sigterm() -> None:
    """Have SIGTERM end the program with 0; only the main thread can say so."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


# -- the test cases ----------------------------------------------------------------------------------------------------


def test_cases(do_call: Callable[[Message], Message] = client_do_single_call) -> bool:
    """Make the calls one after another and print them. Whether every reply was the right one."""
    right = True
    for call, expected in _cases(name=str(uuid4())):
        reply = do_call(call)
        right = right and reply == expected
        print("ok  " if reply == expected else "FAIL", json.dumps(call), "->", json.dumps(reply), flush=True)
    return right


def _cases(name: str) -> list[tuple[Message, Message]]:
    def put(val: Any) -> tuple[Message, Message]:
        call = {"func": "PUT", "params": {"obj": name, "val": val}}
        return call, {"status": "OK", "response": {"func": "PUT", "response": {"obj": name, "response": "ok"}}}

    def get(val: Any) -> tuple[Message, Message]:
        call = {"func": "GET", "params": {"obj": name}}
        return call, {"status": "OK", "response": {"func": "GET", "response": {"obj": name, "val": val}}}

    values: list[Any] = [1, -2.5, "text", "Grüße", None, True, [], {"list": [1, [2, {"three": 3}]]}]
    wrong: list[Message] = [
        {"func": "DELETE", "params": {"obj": name}},
        {"func": "PUT", "params": {"obj": name}},
        {"func": "GET", "params": {}},
        {"func": "GET"},
        {"params": {"obj": name}},
        {},
    ]
    return [get(None), *(case for value in values for case in (put(value), get(value))), *((call, ERROR) for call in wrong)]


# -- the program -------------------------------------------------------------------------------------------------------


def both() -> bool:
    """The gateway in a forked child, the test cases here. No call of PRPC comes before the fork."""
    listener = open_listener()  # here, so that connections wait for the child from the start
    child = os.fork()
    if child == 0:
        server_program(listener)
    listener.close()
    try:
        return test_cases()
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def main(words: list[str]) -> int:
    """Run one mode; 0 where every test case went well."""
    exit_on_sigterm()
    modes: dict[str, Callable[[], bool | None]] = {
        "LOCAL": lambda: test_cases(do_local_call),
        "CLIENT": test_cases,
        "SERVER": server_program,
        "BOTH": both,
    }
    if len(words) != 1 or words[0] not in modes:
        print("usage: python3 examples/srpc/srpc_lab.py LOCAL|CLIENT|SERVER|BOTH", file=sys.stderr)
        return 2
    return 0 if modes[words[0]]() is not False else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
