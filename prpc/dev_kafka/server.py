"""Connections: frames in, frames out, one request after the other as a Kafka broker does it on one connection."""

from __future__ import annotations

import asyncio
import io
import logging
import struct
from typing import Any

from aiokafka.protocol.api import RequestHeader_v1, RequestHeader_v2, ResponseHeader_v0, ResponseHeader_v1

from prpc.dev_kafka.api import APIS, Api, topics_of
from prpc.dev_kafka.faults import Faults, Journal, Kind, Seen
from prpc.dev_kafka.login import BEFORE_LOGIN
from prpc.dev_kafka.store import Caller, Store

__all__ = ["Server"]

logger = logging.getLogger(__name__)

#: Largest request in bytes, as in Kafka [socket.request.max.bytes].
MAX_REQUEST = 100 * 1024 * 1024
#: API key and version stand at the front of every request.
KEY_AND_VERSION = struct.Struct(">hh")


class Server:
    """The listening side. All of it runs on the store's loop."""

    def __init__(self, store: Store, faults: Faults, journal: Journal) -> None:
        self._store = store
        self._faults = faults
        self._journal = journal
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, port: int) -> None:
        """Take connections on `port` of loopback (0: a free one, kept from then on). Raises OSError where it is taken."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._connected, self._store.host, port)
            self._store.port = self._listener.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse new connections and cut those there are."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        await self.hang_up()

    async def hang_up(self) -> None:
        """Cut every connection."""
        tasks = tuple(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            # Streams write a cancelled handler into the log; here it is how a connection is cut.
            pass
        except Exception:
            logger.exception("a request could not be answered; its connection is cut")
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = Caller(host=str(writer.get_extra_info("peername")[0]))
        while True:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            if not KEY_AND_VERSION.size <= size <= MAX_REQUEST:
                return
            answer = await self._answer(await reader.readexactly(size), caller)
            if answer is None:
                return
            if answer:
                writer.write(struct.pack(">i", len(answer)) + answer)
                await writer.drain()

    async def _answer(self, frame: bytes, caller: Caller) -> bytes | None:
        """The response; empty where none is wanted, None where the connection ends."""
        key, version = KEY_AND_VERSION.unpack_from(frame)
        api = APIS.get(key)
        if api is None or api.version != version:
            return None
        body = io.BytesIO(frame)
        head = RequestHeader_v2 if api.request.FLEXIBLE_VERSION else RequestHeader_v1
        fields: Any = head.SCHEMA.decode(body)
        _, _, correlation_id, client_id, *_ = fields
        caller.client_id = client_id or ""
        request = api.request.decode(body)
        self._journal.add(Seen(api.name, caller.client_id, request))
        if self._store.options.users and caller.user is None and api.name not in BEFORE_LOGIN:
            return None
        given = await self._handled(api, request, caller)
        return self._header(api, correlation_id) + given if given else given

    async def _handled(self, api: Api, request: Any, caller: Caller) -> bytes | None:
        """The response's body, after the fault that waits for such a request."""
        fault = self._faults.take(api.name, topics_of(request))
        kind = fault.kind if fault else None
        if kind is Kind.REFUSE:
            return None
        if fault and kind is Kind.DELAY:
            await asyncio.sleep(fault.seconds)
        if fault and kind is Kind.FAIL:
            answer: tuple[Any, ...] | None = api.refuse(request, fault.code)
            if api.name == "Produce" and request.required_acks == 0:
                return None
        else:
            answer = await api.handle(self._store, request, caller)
        if kind is Kind.LOSE_REPLY:
            return None
        return bytes(api.response(*answer).encode()) if answer is not None else b""

    @staticmethod
    def _header(api: Api, correlation_id: int) -> bytes:
        head = ResponseHeader_v1(correlation_id, {}) if api.request.FLEXIBLE_VERSION else ResponseHeader_v0(correlation_id)
        return bytes(head.encode())
