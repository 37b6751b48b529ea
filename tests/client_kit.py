"""For the client's tests: a server that does what the test says, a broker that fails as the test says, and the two faces."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prpc.app_client import AsCompleted, AsyncClient, AwaitableTask, Client, Gathered, Mapped
from prpc.brokers import create_broker
from prpc.brokers.base import Capabilities, Delivery, Mail, Outgoing, Reply, ServerRecord
from prpc.codec import Codec
from prpc.exceptions import BrokerUnavailableError
from prpc.failure import describe
from prpc.protocol.facts import CallFacts, read_cancel
from prpc.prpcmessage import PRPCMessage
from prpc.settings import Settings

#: Longest wait of a test for something that must come.
PATIENCE = 20.0


def memory_settings(**more: Any) -> Settings:
    """Settings of a memory broker that nobody else uses."""
    return Settings.from_env({}, type_broker="memory", url_broker=f"memory://{uuid.uuid4().hex}", queue_name="q", **more)


def boom(text: str) -> None:
    raise KeyError(text)


def play(item: Any) -> Any:
    """What the item says: "boom" fails, "hold" waits for `ScriptedServer.answer`, all others come back."""
    if item == "boom":
        raise KeyError(item)
    return item


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ping": lambda: "pong",
    "get_function_server": lambda: [{"func_name": "ping", "func_args": [], "func_kwargs": []}],
    "add": lambda a, b=10: a + b,
    "echo": lambda *args, **kwargs: [list(args), kwargs],
    "nothing": lambda: None,
    "boom": boom,
    "play": play,
}


class ScriptedServer:
    """Answers the calls of FUNCTIONS at once. A call of `hold` waits for `answer`, one of `silent` gets no answer ever."""

    def __init__(self, settings: Settings, *, announced: bool = True) -> None:
        self.settings = settings
        self.calls: list[PRPCMessage] = []
        self.facts: dict[UUID, CallFacts] = {}
        self.cancelled: list[UUID] = []
        self._announced = announced
        self._codec = Codec()
        #: Calls without an answer, by id and attempt.
        self._held: dict[tuple[UUID, int], tuple[Delivery, PRPCMessage]] = {}
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="scripted-server", daemon=True)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait until something came true."""
        with self._changed:
            assert self._changed.wait_for(happened, PATIENCE)

    def names(self) -> list[str]:
        return [message.func_name for message in self.calls]

    def answer(self, message_id: UUID, result: Any, attempt: int = 1) -> None:
        """Answer a held call, in the entry of this attempt; from any thread."""
        self.until(lambda: (message_id, attempt) in self._held)
        delivery, message = self._held.pop((message_id, attempt))
        self._loop.call_soon_threadsafe(self._settle, delivery, message, result, None)

    def fail(self, message_id: UUID, error: Exception) -> None:
        """End a held call with an exception; from any thread."""
        self.until(lambda: (message_id, 1) in self._held)
        delivery, message = self._held.pop((message_id, 1))
        self._loop.call_soon_threadsafe(self._settle, delivery, message, None, error)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._broker = create_broker(self.settings)
        await self._broker.connect()
        queue = self.settings.queue_name
        await self._broker.declare(queue)
        consumer = self._broker.consume(queue, consumer=uuid.uuid4().hex)
        listener = await self._broker.listen(queue)
        if self._announced:
            await self._broker.announce(queue, ServerRecord("scripted", {}), 3600)

        async def work() -> None:
            while True:
                for delivery in await consumer.take(1000):
                    self._handle(delivery)

        async def hear() -> None:
            while True:
                for body in await listener.receive():
                    with self._changed:
                        self.cancelled.extend(read_cancel(body))
                        self._changed.notify_all()

        tasks = [asyncio.create_task(work()), asyncio.create_task(hear())]
        self._ready.set()
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await consumer.close()
        await listener.close()
        await self._broker.close()

    def _handle(self, delivery: Delivery) -> None:
        assert delivery.body is not None
        message = self._codec.read_call(delivery.body)
        held = message.func_name == "hold" or (message.func_name == "play" and message.func_args[0] == "hold")
        with self._changed:
            self.calls.append(message)
            facts = self.facts[message.message_id] = CallFacts.from_fields(delivery.facts)
            if held:
                self._held[message.message_id, facts.attempt] = (delivery, message)
            self._changed.notify_all()
        if message.func_name in FUNCTIONS and not held:
            try:
                result = FUNCTIONS[message.func_name](*message.func_args, **message.func_kwargs)
            except Exception as exc:
                self._settle(delivery, message, None, exc)
            else:
                self._settle(delivery, message, result, None)

    def _settle(self, delivery: Delivery, message: PRPCMessage, result: Any, error: Exception | None) -> None:
        failure = None if error is None else describe(error)
        done = message.done(datetime.now(UTC), result, None if error is None else str(error))
        facts = CallFacts.from_fields(delivery.facts)
        written = self._codec.write_reply(done, failure, for_us=facts.reply_to is not None)
        delivery.settle(Reply(message.message_id, written.body, facts.reply_to, written.wake))


class FlakyBroker:
    """A broker of which the test decides what works. Calls end in `published`, mail comes from `post`."""

    capabilities = Capabilities()

    def __init__(self) -> None:
        self.connects = 0
        self.closed = 0
        #: Raised by `connect` as long as it stands here.
        self.connect_error: BaseException | None = None
        #: Whether `connect` never returns.
        self.hangs = False
        self.publish_error: BaseException | None = None
        self.published: list[Outgoing] = []
        self.broadcasts: list[UUID] = []
        self.broadcast_error: BaseException | None = None
        self.forgotten: list[UUID] = []
        self.kept: dict[UUID, bytes] = {}
        self.collect_errors: list[BaseException] = []
        self.collected: list[list[UUID]] = []
        self.close_error: BaseException | None = None
        #: Awaited by `close`.
        self.close_waits: asyncio.Event | None = None
        self.announced: list[ServerRecord] = []
        self.address = "here"

    async def connect(self) -> None:
        self.connects += 1
        self._loop = asyncio.get_running_loop()
        self.mail: asyncio.Queue[Mail | BaseException] = asyncio.Queue()
        if self.hangs:
            await asyncio.Event().wait()
        if self.connect_error is not None:
            raise self.connect_error

    async def open_mailbox(self, queue: str) -> FlakyBroker:
        return self

    def publish(self, queue: str, call: Outgoing) -> Awaitable[None]:
        self.published.append(replace(call, refused=None))  # which would hold its caller
        return self._answer(self.publish_error)

    def broadcast(self, queue: str, body: bytes) -> Awaitable[None]:
        self.broadcasts.extend(read_cancel(body))
        return self._answer(self.broadcast_error)

    def _answer(self, error: BaseException | None) -> Awaitable[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        return future

    async def servers(self, queue: str) -> Sequence[ServerRecord]:
        return self.announced

    async def receive(self) -> Mail:
        mail = await self.mail.get()
        if isinstance(mail, BaseException):
            raise mail
        return mail

    def post(self, mail: Mail | BaseException) -> None:
        """Have the mailbox receive this; from any thread."""
        self._loop.call_soon_threadsafe(self.mail.put_nowait, mail)

    async def collect(self, message_ids: Iterable[UUID]) -> Mapping[UUID, bytes]:
        self.collected.append(list(message_ids))
        if self.collect_errors:
            raise self.collect_errors.pop(0)
        return {key: self.kept[key] for key in self.collected[-1] if key in self.kept}

    def forget(self, message_ids: Iterable[UUID]) -> None:
        self.forgotten.extend(message_ids)

    async def close(self) -> None:
        self.closed += 1
        if self.close_waits is not None:
            await self.close_waits.wait()
        if self.close_error is not None:
            raise self.close_error


def reply_to(call: Outgoing, result: Any) -> bytes:
    """The compact reply that a server would send to this call."""
    message = Codec().read_call(call.body)
    return Codec().write_reply(message.done(datetime.now(UTC), result), None, for_us=True).wake


def unavailable() -> BrokerUnavailableError:
    return BrokerUnavailableError("the broker is away", url="redis://example")


class SyncFace:
    """The waiting methods of plain code under the names of the other face, so that one scenario serves both."""

    name = "sync"

    def client(self, settings: Settings, **more: Any) -> Client:
        return Client(settings.type_broker, settings.url_broker, settings.queue_name, call_timeout=settings.call_timeout, **more)

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        try:
            scenario.send(None)
        except StopIteration:
            return
        raise AssertionError("the sync face awaited something")

    async def result(self, task: AwaitableTask[Any], seconds: timedelta | float | None = PATIENCE) -> Any:
        return task.sync_wait_result_task(seconds)

    async def gathered(self, many: Gathered[Any] | Mapped[Any], seconds: float | None = PATIENCE) -> list[Any]:
        return many.result(seconds)

    async def each(self, tasks: AsCompleted[Any]) -> list[AwaitableTask[Any]]:
        return list(tasks)

    async def read(self, many: Mapped[Any], count: int, into: list[Any]) -> None:
        """Read so many results in a loop, and leave it."""
        for result in many:
            into.append(result)
            if len(into) == count:
                break

    async def start(self, many: Mapped[Any]) -> Any:
        return iter(many)

    async def step(self, results: Any) -> Any:
        return next(results, "end")

    async def ping(self, client: Any) -> str:
        return str(client.ping())

    async def functions(self, client: Any) -> Any:
        return client.get_function_server()

    async def servers(self, client: Any) -> Any:
        return client.servers()

    async def close(self, client: Any) -> None:
        client.close()

    async def until(self, server: ScriptedServer, happened: Callable[[], bool]) -> None:
        server.until(happened)

    async def answer(self, server: ScriptedServer, task: AwaitableTask[Any], result: Any, attempt: int = 1) -> None:
        server.answer(task.message.message_id, result, attempt)


class AsyncFace:
    """The face of coroutines."""

    name = "async"

    def client(self, settings: Settings, **more: Any) -> AsyncClient:
        return AsyncClient(
            settings.type_broker, settings.url_broker, settings.queue_name, call_timeout=settings.call_timeout, **more
        )

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        asyncio.run(scenario)

    async def result(self, task: AwaitableTask[Any], seconds: timedelta | float | None = PATIENCE) -> Any:
        return await task.async_wait_result_task(seconds)

    async def gathered(self, many: Gathered[Any] | Mapped[Any], seconds: float | None = PATIENCE) -> list[Any]:
        return await many.async_result(seconds)

    async def each(self, tasks: AsCompleted[Any]) -> list[AwaitableTask[Any]]:
        return [task async for task in tasks]

    async def read(self, many: Mapped[Any], count: int, into: list[Any]) -> None:
        """Read so many results in a loop, and leave it."""
        async for result in many:
            into.append(result)
            if len(into) == count:
                break

    async def start(self, many: Mapped[Any]) -> Any:
        return aiter(many)

    async def step(self, results: Any) -> Any:
        return await anext(results, "end")

    async def ping(self, client: Any) -> str:
        return str(await client.ping())

    async def functions(self, client: Any) -> Any:
        return await client.get_function_server()

    async def servers(self, client: Any) -> Any:
        return await client.servers()

    async def close(self, client: Any) -> None:
        await client.close()

    async def until(self, server: ScriptedServer, happened: Callable[[], bool]) -> None:
        await asyncio.to_thread(server.until, happened)

    async def answer(self, server: ScriptedServer, task: AwaitableTask[Any], result: Any, attempt: int = 1) -> None:
        await asyncio.to_thread(server.answer, task.message.message_id, result, attempt)


Face = SyncFace | AsyncFace


@contextmanager
def served(**more: Any) -> Iterator[ScriptedServer]:
    """A scripted server on a memory broker of its own."""
    with ScriptedServer(memory_settings(**more)) as server:
        yield server
