"""The client of the metrics server. It needs this file and Python only.

client = Client("127.0.0.1", 8888, timeout=5)
client.put("palm.cpu", 0.5, timestamp=1150864247)
client.get("*")  # {"palm.cpu": [(1150864247, 0.5)]}
"""

from __future__ import annotations

import socket
import time

__all__ = ["Client", "ClientError"]

PIECE_BYTES = 64 * 1024
END = b"\n\n"


class ClientError(Exception):
    """The command was not answered with what it asks for.

    After a `put` that failed in another way than by the server's error reply, the value may have been stored or not.
    """


class Client:
    """Puts and gets measurements. Each command has a connection of its own, so a client may be shared by threads."""

    def __init__(self, host: str, port: int, timeout: float | None = None) -> None:
        """A client of the server at `host` (name or address) and `port`; nothing is connected yet.

        `timeout`: seconds in which one `put` or `get` is to be over, from opening the connection to the last byte of the reply;
        None waits for ever. Opening, sending, and each wait for a further piece of the reply get so long, and no wait is begun
        once it has passed. So the error for a server that is silent comes after `timeout`, for one that sends little by little at
        its next piece, and in any case before twice `timeout` (plus once for every further address that `host` has).
        """
        self._address = (host, port)
        self._timeout = timeout

    def put(self, key: str, value: float, timestamp: int | None = None) -> None:
        """Store a value. `timestamp`: seconds since 1970, by default now.

        Raises ClientError where the server does not say `ok`.
        """
        if timestamp is None:
            timestamp = int(time.time())
        if self._ask("put", key, value, timestamp):
            raise ClientError("the reply to a put has more lines than its status")

    def get(self, key: str) -> dict[str, list[tuple[int, float]]]:
        """What the server has for a key, or for every key (`*`): `{key: [(timestamp, value), ...]}`, the oldest first.

        Empty where it has nothing. Raises ClientError where the reply is not a whole and correct one.
        """
        found: dict[str, list[tuple[int, float]]] = {}
        for line in self._ask("get", key):
            name, timestamp, value = _read_line(line)
            found.setdefault(name, []).append((timestamp, value))
        for measurements in found.values():
            measurements.sort(key=lambda measurement: measurement[0])
        return found

    def _ask(self, *words: object) -> list[str]:
        """Send one command; the lines of its reply after the status."""
        command = _write_command(words)
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        try:
            with socket.create_connection(self._address, self._timeout) as connection:
                connection.sendall(command)
                reply = _receive(connection, deadline)
        except OSError as exc:
            raise ClientError(f"no reply from {self._address[0]}:{self._address[1]}: {exc}") from exc
        return _read_reply(reply)


def _write_command(words: tuple[object, ...]) -> bytes:
    texts = [str(word) for word in words]
    for text in texts:
        if text.split() != [text]:
            raise ClientError(f"{text[:100]!r} cannot be sent: a key or a number is one word without white space")
    try:
        return (" ".join(texts) + "\n").encode()
    except UnicodeEncodeError as exc:
        raise ClientError(f"the command cannot be sent: {exc}") from exc


def _receive(connection: socket.socket, deadline: float | None) -> bytes:
    """One reply without its end. `deadline`: on the clock of `time.monotonic`."""
    reply = bytearray()
    while True:
        if deadline is not None and time.monotonic() >= deadline:
            raise ClientError(f"the reply was not complete in time; {len(reply)} bytes came")
        piece = connection.recv(PIECE_BYTES)
        if not piece:
            raise ClientError(f"the server closed the connection after {len(reply)} bytes, before the end of its reply")
        # What was searched before is not searched again; the end may stand on the seam.
        seam = max(0, len(reply) - 1)
        reply += piece
        end = reply.find(END, seam)
        if end >= 0:
            return bytes(reply[:end])


def _read_reply(reply: bytes) -> list[str]:
    try:
        status, *lines = reply.decode().split("\n")
    except UnicodeDecodeError as exc:
        raise ClientError(f"the reply is no UTF-8: {exc}") from exc
    if status == "error":
        raise ClientError("\n".join(lines) or "the server answered with an error")
    if status != "ok":
        raise ClientError(f"the reply has the unknown status {status[:100]!r}")
    return lines


def _read_line(line: str) -> tuple[str, int, float]:
    words = line.split(" ")
    # float() and int() alone would also take white space around a number, and `1_000`.
    if words == line.split() and "_" not in "".join(words[1:]):
        try:
            key, value, timestamp = words
            return key, int(timestamp), float(value)
        except ValueError:
            pass
    raise ClientError(f"the reply has the malformed line {line[:100]!r}")
