"""The gateway: gRPC outside, one PRPC call or PRPC stream for each request inside. `python -m examples.messenger.server.server`

It keeps no messages: any number of gateways may stand before any number of workers.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, NoReturn

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from examples.messenger.proto import messenger_pb2, messenger_pb2_grpc
from examples.messenger.server.readers import Readers
from examples.messenger.stopping import run_until_signal
from prpc import AsyncClient, PRPCError, Stream

__all__ = ["Gateway", "main", "serve"]

logger = logging.getLogger("examples.messenger")

DEFAULT_PORT = 51075
#: Seconds that sending a message may take.
SEND_WITHIN = 5.0
#: Seconds that a stopping gateway gives to the messages that are being sent.
STOP_WITHIN = 6.0
SECOND = 1_000_000_000

OPTIONS = (
    # Two gateways on one port are a mistake.
    ("grpc.so_reuseport", 0),
    # Clients may ask every few seconds whether the gateway is still there.
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
)


class Gateway(messenger_pb2_grpc.MessengerServerServicer):
    """The service MessengerServer."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._readers = Readers()

    async def SendMessage(
        self, request: messenger_pb2.SendMessageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> messenger_pb2.SendMessageResponse:
        """Answered when the message is in every open stream of this gateway, or a moment later."""
        began = await self._readers.settled()
        left = context.time_remaining()
        calls = self._client.options(timeout=SEND_WITHIN if left is None else max(0.001, min(SEND_WITHIN, left)))
        try:
            send_time: int = await calls.call("send_message", request.author, request.text)
        except ValueError as exc:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
        except PRPCError as exc:
            logger.warning("a message was not confirmed: %s", exc)
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the message was not confirmed: {exc}")
        await self._readers.have(send_time, began)
        return messenger_pb2.SendMessageResponse(sendTime=_timestamp(send_time))

    async def ReadMessages(
        self, request: messenger_pb2.ReadMessagesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[messenger_pb2.Message]:
        """The stream is open when its initial metadata come. It ends with UNAVAILABLE where it could miss messages."""
        stream: Stream[Any] = self._client.stream("read_messages", announced=True)
        reasons = []

        def end(reason: str) -> None:
            reasons.append(reason)
            stream.close()

        reader = self._readers.ask(end)

        def over(_: object) -> None:
            stream.close()
            self._readers.left(reader)

        context.add_done_callback(over)  # type: ignore[arg-type] # the stubs ask for a class of their own
        try:
            async for message in stream:
                if message is None:
                    self._readers.opened(reader)
                    await context.send_initial_metadata(())
                    continue
                self._readers.takes(reader)
                yield messenger_pb2.Message(
                    author=message["author"], text=message["text"], sendTime=_timestamp(message["send_time"])
                )
                self._readers.took(reader, message["send_time"])
        except PRPCError as exc:
            reasons.append(f"the worker was lost: {exc}")
        reason = reasons[0] if reasons else "the worker stops"
        logger.info("a stream ends: %s", reason)
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"{reason}; open another stream")

    def close(self) -> None:
        """End every stream."""
        self._readers.end_all("the server stops")


def _timestamp(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // SECOND, nanos=nanoseconds % SECOND)


async def serve(port: int) -> NoReturn:
    """Serve on every address until cancelled; 0 is a free port. The port is printed once it takes connections.

    Broker and queue come from the environment. Raises RuntimeError where the port cannot be had.
    """
    async with AsyncClient() as client:
        # The first connection to a broker takes longer than a call; a broker may also come later.
        with suppress(PRPCError):
            await client.servers()
        gateway = Gateway(client)
        server = grpc.aio.server(options=OPTIONS)
        messenger_pb2_grpc.add_MessengerServerServicer_to_server(gateway, server)
        bound = server.add_insecure_port(f"0.0.0.0:{port}")
        await server.start()
        print(f"messenger server listens on 0.0.0.0:{bound}", flush=True)
        try:
            while True:
                await server.wait_for_termination()
        finally:
            gateway.close()
            await server.stop(STOP_WITHIN)


def main() -> None:
    """The command: serve until SIGTERM or Ctrl-C; exit code 1 where it cannot."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logger.setLevel(logging.INFO)
    try:
        port = int(os.environ.get("MESSENGER_SERVER_PORT") or DEFAULT_PORT)
        run_until_signal(serve(port))
    except (PRPCError, RuntimeError, ValueError) as exc:
        print(f"messenger server: {exc}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
