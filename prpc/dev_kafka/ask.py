"""One question to a Kafka broker over a socket that blocks: for those who wait for one to start, with no event loop."""

from __future__ import annotations

import socket
import struct
from typing import Any

from aiokafka.protocol import admin, commit, coordination, metadata

__all__ = ["is_ready"]

#: A group that nobody uses.
GROUP = "prpc-is-it-ready"


def _ask(connection: socket.socket, request: Any) -> Any:
    """The answer. Raises OSError or EOFError when the broker goes away."""
    message = request.build_request_header(1, "prpc-dev-broker").encode() + request.encode()
    connection.sendall(struct.pack(">i", len(message)) + message)
    (size,) = struct.unpack(">i", _read(connection, 4))
    return request.RESPONSE_TYPE.decode(_read(connection, size)[4:])


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError("the broker closed the connection")
        data += more
    return data


def is_ready(port: int, nodes: int, user: tuple[str, str] | None = None, *, timeout: float = 5.0) -> bool:
    """Whether the broker on that port of 127.0.0.1 does its work.

    It knows `nodes` brokers, topics can be created on all of them, and groups have a coordinator, which has loaded them if it is
    this broker. Raises OSError or EOFError while it does not listen or breaks off.
    """
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        if user is not None:
            _ask(connection, admin.SaslHandShakeRequest_v1("PLAIN"))
            _ask(connection, admin.SaslAuthenticateRequest_v0("\0".join(("", *user)).encode()))
        if len(_ask(connection, metadata.MetadataRequest_v5([], False)).brokers) < nodes:
            return False
        trial: Any = ("prpc-is-it-ready", 1, nodes, [], [])
        created = _ask(connection, admin.CreateTopicsRequest_v3([trial], round(timeout * 1000), True))
        if any(code for _, code, _ in created.topic_errors):
            return False
        found = _ask(connection, coordination.FindCoordinatorRequest_v1(GROUP, 0))
        if found.error_code:
            return False
        # A coordinator that is known may still have to load what it is to coordinate.
        return found.port != port or not _ask(connection, commit.OffsetFetchRequest_v3(GROUP, [])).error_code
