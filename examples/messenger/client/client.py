"""The client: HTTP with JSON outside, the gateway's gRPC inside. `python -m examples.messenger.client.client`"""

from __future__ import annotations

import json
import logging
import os
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import grpc

from examples.messenger.client.inbox import Inbox, iso_time, nanoseconds
from examples.messenger.proto import messenger_pb2, messenger_pb2_grpc
from examples.messenger.stopping import on_signal

__all__ = ["ChatServer", "main", "run_client"]

logger = logging.getLogger("examples.messenger")

DEFAULT_PORT = 8080
DEFAULT_SERVER = "localhost:51075"
MOST_BODY_BYTES = 4 * 1024 * 1024
#: Seconds until a message that was not confirmed is answered with an error; the gateway's own answer comes before.
SEND_WITHIN = 7.0
#: Seconds that a message waits for the stream that shall bring it, too, and its answer for the message to be in the buffer.
OPEN_WITHIN = ARRIVED_WITHIN = 1.0
#: Seconds that the start waits for the stream.
START_WITHIN = 2.0
#: Seconds that a stopping client gives to requests.
STOP_WITHIN = 8.0

OPTIONS = (
    # The gateway is a neighbour: no proxy, and soon there again.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)

ROUTES = {"/": "GET", "/sendMessage": "POST", "/getAndFlushMessages": "POST"}


class _Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class ChatServer(ThreadingHTTPServer):
    """The HTTP server: a thread for each connection."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int, stub: messenger_pb2_grpc.MessengerServerStub, inbox: Inbox) -> None:
        """Listens on every address; `port` 0 is a free one. Raises OSError."""
        self._stub, self.inbox = stub, inbox
        self._quiet = threading.Condition()
        self._busy = 0
        super().__init__(("0.0.0.0", port), _Handler)

    def server_bind(self) -> None:
        """Without the look-up of the host's name that HTTPServer does: it may take long, and nobody needs it."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def send(self, author: str, text: str) -> str:
        """Send a message; its time as text. Raises _Refused."""
        self.inbox.wait_open(OPEN_WITHIN)
        try:
            request = messenger_pb2.SendMessageRequest(author=author, text=text)
            answer = self._stub.SendMessage(request, timeout=SEND_WITHIN, wait_for_ready=True)
        except grpc.RpcError as exc:
            code = exc.code() if isinstance(exc, grpc.Call) else grpc.StatusCode.UNKNOWN
            details = exc.details() if isinstance(exc, grpc.Call) else None
            is_ours = code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if is_ours else HTTPStatus.SERVICE_UNAVAILABLE
            raise _Refused(status, details or code.name) from exc
        self.inbox.wait_for(nanoseconds(answer.sendTime), ARRIVED_WITHIN)
        return iso_time(answer.sendTime)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """A request is being answered."""
        with self._quiet:
            self._busy += 1
        try:
            yield
        finally:
            with self._quiet:
                self._busy -= 1
                self._quiet.notify_all()

    def finish(self, seconds: float) -> None:
        """Wait until no request is being answered."""
        with self._quiet:
            self._quiet.wait_for(lambda: not self._busy, seconds)


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"
    server_version = "messenger"
    #: An answer leaves in one piece.
    wbufsize = -1
    #: Seconds without a byte after which a connection is closed.
    timeout = 60

    def do_POST(self) -> None:
        with self.server.busy():
            try:
                self._reply(HTTPStatus.OK, self._answer())
            except _Refused as exc:
                self._reply(exc.status, {"error": str(exc)})
            self.wfile.flush()

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST

    def _answer(self) -> object:
        body = self._read_body()
        path = urlsplit(self.path).path
        if path not in ROUTES:
            raise _Refused(HTTPStatus.NOT_FOUND, f"there is no {path}; there are {', '.join(ROUTES)}")
        if ROUTES[path] != self.command.replace("HEAD", "GET"):
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {ROUTES[path]}")
        if path == "/sendMessage":
            author, text = _read_message(body)
            return {"sendTime": self.server.send(author, text)}
        if path == "/getAndFlushMessages":
            return self.server.inbox.flush()
        return {"name": "messenger", "streamIsOpen": self.server.inbox.wait_open(0)}

    def _read_body(self) -> bytes:
        """The body, whoever needs it: the next request on the connection begins behind it."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            self.close_connection = True
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "a body needs a Content-Length")
        if len(length) > 10 or int(length) > MOST_BODY_BYTES:
            self.close_connection = True
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {MOST_BODY_BYTES} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise _Refused(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
        return body

    def _reply(self, status: HTTPStatus, value: object) -> None:
        body = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def _read_message(body: bytes) -> tuple[str, str]:
    """Author and text. Raises _Refused."""
    try:
        value = json.loads(body.decode())
        author, text = value["author"], value["text"]
        if not (isinstance(author, str) and isinstance(text, str)):
            raise TypeError("author and text are texts")
        (author + text).encode()  # JSON can write halves of characters, which are no text
    except (ValueError, LookupError, TypeError, RecursionError) as exc:
        text = 'the body is not {"author": "...", "text": "..."} in UTF-8'
        raise _Refused(HTTPStatus.BAD_REQUEST, f"{text}: {type(exc).__name__}") from exc
    return author, text


def run_client(port: int, server: str, stop: threading.Event) -> None:
    """Serve HTTP on every address until `stop` is set; blocks.

    `port`: 0 is a free one; it is printed once it takes connections. `server`: host:port of the gateway. Raises OSError.
    """
    with grpc.insecure_channel(server, options=OPTIONS) as channel:
        stub = messenger_pb2_grpc.MessengerServerStub(channel)
        inbox = Inbox(stub)
        inbox.start()
        try:
            _serve_http(port, stub, inbox, stop)
        finally:
            inbox.close()


def _serve_http(port: int, stub: messenger_pb2_grpc.MessengerServerStub, inbox: Inbox, stop: threading.Event) -> None:
    began = time.monotonic()
    while not (stop.is_set() or inbox.wait_open(0.05)) and time.monotonic() < began + START_WITHIN:
        pass
    with ChatServer(port, stub, inbox) as http:
        print("messenger client listens on {}:{}".format(*http.server_address[:2]), flush=True)
        serving = threading.Thread(target=http.serve_forever, name="messenger-http", kwargs={"poll_interval": 0.1}, daemon=True)
        serving.start()
        stop.wait()
        http.shutdown()
        http.finish(STOP_WITHIN)


def main() -> None:
    """The command: serve until SIGTERM or Ctrl-C; exit code 1 where it cannot."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logger.setLevel(logging.INFO)
    stop = threading.Event()
    on_signal(stop.set)
    try:
        port = int(os.environ.get("MESSENGER_HTTP_PORT") or DEFAULT_PORT)
        run_client(port, os.environ.get("MESSENGER_SERVER_ADDR") or DEFAULT_SERVER, stop)
    except (OSError, OverflowError, ValueError) as exc:
        print(f"messenger client: {exc}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
