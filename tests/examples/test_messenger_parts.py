"""The parts of the messenger example without processes: room, outbox, the gateway's book of streams, files."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from metrics_kit import PATIENCE, ROOT

from examples.messenger import outbox as outbox_module
from examples.messenger import worker
from examples.messenger.outbox import MOST_BYTES, NotConfirmed, Outbox
from examples.messenger.proto import messenger_pb2
from examples.messenger.room import Letter, MissedMessages, Reader, Room
from examples.messenger.server import readers as readers_module
from examples.messenger.server.readers import Readers
from prpc import AsyncClient, BrokerUnavailableError

HERE = ROOT / "examples" / "messenger"


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), PATIENCE)

    asyncio.run(bounded())


async def read(reader: Reader, count: int) -> list[int]:
    """Times of so many messages."""
    return [(await anext(reader))["send_time"] for _ in range(count)]


# The room


def test_times_ascend_and_depend_on_the_order_alone() -> None:
    deliveries: list[list[Letter]] = [[("a", "x", 100), ("a", "y", 50)], [("b", "z", 100)], [("c", "w", 500)], []]
    rooms = [Room(), Room()]
    times = [[time for letters in deliveries for time in room.deliver(0, letters)] for room in rooms]
    assert times[0] == times[1] == [100, 101, 102, 500]
    assert rooms[0].last == 500


def test_a_room_that_began_later_gives_the_same_times() -> None:
    old, new = Room(), Room()
    old.deliver(0, [("a", "x", 1000)])  # by a clock that is ahead
    floor = old.last
    assert old.deliver(floor, [("b", "y", 10)]) == new.deliver(floor, [("b", "y", 10)]) == [1001]


def test_readers_get_what_comes_after_they_entered() -> None:
    async def scenario() -> None:
        room = Room()
        room.deliver(0, [("a", "x", 1)])
        with room.enter() as early:
            room.deliver(0, [("a", "", 2)])
            with room.enter() as late:
                room.deliver(0, [("a", "z", 3)])
                assert await read(early, 2) == [2, 3]
                assert await anext(late) == {"author": "a", "text": "z", "send_time": 3}
            room.close()
            assert [message async for message in early] == []
        assert [message async for message in room.enter()] == []

    run(scenario)


def test_a_closed_room_lets_its_readers_read_to_the_end() -> None:
    async def scenario() -> None:
        room = Room()
        reader, waiting = room.enter(), room.enter()
        next_one = asyncio.ensure_future(anext(waiting))
        room.deliver(0, [("a", "x", 1), ("a", "y", 2)])
        room.close()
        room.deliver(0, [("a", "z", 3)])
        assert [message["send_time"] async for message in reader] == [1, 2]
        assert (await next_one)["send_time"] == 1

    run(scenario)


def test_readers_that_missed_something_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.messenger.room.MOST_UNREAD", 2)

    async def scenario() -> None:
        room = Room()
        slow, quick = room.enter(), room.enter()
        for number in range(3):
            room.deliver(0, [("a", "x", number)])
            await anext(quick)
        with pytest.raises(MissedMessages, match="2 messages"):
            await anext(slow)
        room.send_away("why")
        with pytest.raises(MissedMessages, match="why"):
            await anext(quick)
        room.deliver(0, [("a", "x", 10)])
        assert await read(room.enter(), 0) == []

    run(scenario)


# The outbox


class Channel:
    """What the workers hear: one room and one outbox, which hears itself when the test says so."""

    def __init__(self) -> None:
        self.room = Room()
        self.outbox = Outbox(self.room, self.publish)
        self.deliveries: asyncio.Queue[tuple[str, int, Sequence[Letter]]] = asyncio.Queue()
        self.error: Exception | None = None

    async def publish(self, name: str, floor: int, letters: Sequence[Letter]) -> None:
        self.deliveries.put_nowait((name, floor, letters))
        if self.error is not None:
            raise self.error

    async def hear(self) -> list[str]:
        """The next delivery is heard; its texts."""
        name, floor, letters = await self.deliveries.get()
        self.outbox.heard(name, self.room.deliver(floor, letters))
        return [text for _, text, _ in letters]


def test_what_comes_while_a_delivery_is_under_way_goes_together() -> None:
    async def scenario() -> None:
        channel = Channel()
        running = asyncio.create_task(channel.outbox.run())
        first = asyncio.create_task(channel.outbox.send("a", "0"))
        await asyncio.sleep(0)
        while channel.deliveries.empty():
            await asyncio.sleep(0)
        others = [asyncio.create_task(channel.outbox.send("a", str(number))) for number in range(1, 5)]
        await asyncio.sleep(0)
        others[1].cancel()
        await asyncio.sleep(0)
        assert await channel.hear() == ["0"] and channel.room.last == await first
        assert await channel.hear() == ["1", "3", "4"], "and not what nobody waits for"
        times = [await other for number, other in enumerate(others) if number != 1]
        assert times == sorted(times) and times[0] > await first
        running.cancel()

    run(scenario)


def test_deliveries_are_bounded() -> None:
    async def scenario() -> None:
        channel = Channel()
        running = asyncio.create_task(channel.outbox.run())
        sends = [asyncio.create_task(channel.outbox.send("a", "x" * 400_000)) for _ in range(5)]
        await asyncio.sleep(0)
        assert [len(await channel.hear()) for _ in range(3)] == [2, 2, 1]
        await asyncio.gather(*sends)
        for text in ("x" * (MOST_BYTES + 1), "ж" * (MOST_BYTES // 6)):
            with pytest.raises(ValueError, match=str(MOST_BYTES)):
                await channel.outbox.send("a", text)
        running.cancel()

    run(scenario)


def test_what_was_published_and_not_heard_sends_the_readers_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "HEARD_WITHIN", 0.05)

    async def scenario() -> None:
        channel = Channel()
        reader = channel.room.enter()
        running = asyncio.create_task(channel.outbox.run())
        with pytest.raises(NotConfirmed, match="heard"):
            await channel.outbox.send("a", "lost")
        with pytest.raises(MissedMessages):
            await anext(reader)
        sending = asyncio.create_task(channel.outbox.send("a", "next"))
        assert await channel.hear() == ["lost"], "it comes late, and is a message all the same"
        assert await channel.hear() == ["next"]
        await sending
        running.cancel()

    run(scenario)


def test_what_was_not_published_harms_no_reader() -> None:
    async def scenario() -> None:
        channel = Channel()
        reader = channel.room.enter()
        running = asyncio.create_task(channel.outbox.run())
        channel.error = BrokerUnavailableError("away")
        with pytest.raises(NotConfirmed, match="away"):
            await channel.outbox.send("a", "lost")
        channel.error = None
        channel.deliveries.get_nowait()
        sending = asyncio.create_task(channel.outbox.send("a", "next"))
        await channel.hear()
        assert (await anext(reader))["send_time"] == await sending
        running.cancel()

    run(scenario)


def test_a_worker_greets_until_it_hears_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "GREET_AGAIN_AFTER", 0)

    async def scenario() -> None:
        channel = Channel()
        channel.error = BrokerUnavailableError("away")
        greeting = asyncio.create_task(channel.outbox.greet())
        await channel.deliveries.get()
        await channel.deliveries.get()
        channel.error = None
        while not greeting.done():
            await channel.hear()
            await asyncio.sleep(0)
        assert channel.room.last == 0

    run(scenario)


def test_two_workers_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRPC_TYPE_BROKER", "memory")
    monkeypatch.setenv("PRPC_URL_BROKER", "memory://messenger-parts")
    monkeypatch.setenv("PRPC_QUEUE_NAME", "messenger-parts")

    async def scenario() -> None:
        workers = [asyncio.create_task(worker.serve()) for _ in range(2)]
        async with AsyncClient() as client:
            streams = [client.stream("read_messages", announced=True) for _ in range(6)]
            for stream in streams:
                assert await anext(stream) is None
            times = await asyncio.gather(*(client.call("send_message", "a", str(number)) for number in range(20)))
            rows = [await anext(streams[0]) for _ in range(20)]
            assert sorted(row["text"] for row in rows) == sorted(map(str, range(20)))
            assert [row["send_time"] for row in rows] == sorted(times) and len(set(times)) == 20
            for stream in streams[1:]:
                assert [await anext(stream) for _ in range(20)] == rows
            plain = client.stream("read_messages")
            for task in workers:
                task.cancel()
            for stream in [*streams, plain]:
                assert [item async for item in stream] == []
            assert await asyncio.gather(*workers, return_exceptions=True)

    run(scenario)


# The gateway's book of streams


def test_a_sender_waits_for_the_streams_that_are_open_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers_module, "ARRIVED_WITHIN", PATIENCE)

    async def scenario() -> None:
        book, ended = Readers(), list[str]()
        one, two, lazy, gone = (book.ask(ended.append) for _ in range(4))
        settled = asyncio.create_task(book.settled())
        for reader in (one, two, lazy):
            book.opened(reader)
        await asyncio.sleep(0)
        assert not settled.done()
        book.left(gone)
        began = await settled
        late = book.ask(ended.append)
        book.opened(late)
        late.since = began + 1  # it was opened after the message was sent, and need not have it
        book.takes(lazy)
        lazy.giving -= PATIENCE  # its client has not read for long
        book.takes(one)
        book.took(one, 7)  # the stream may be quicker than the answer
        book.takes(two)
        having = asyncio.create_task(book.have(7, began))
        await asyncio.sleep(0)
        assert not having.done()
        book.took(two, 7)
        await having
        assert ended == []

    run(scenario)


def test_a_stream_that_missed_a_message_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARRIVED_WITHIN", "MISSED_AFTER", "OPEN_FOR", "IDLE_FOR"):
        monkeypatch.setattr(readers_module, name, 0)

    async def scenario() -> None:
        book, ended = Readers(), list[str]()
        has_all, deaf, has_later, lazy = (book.ask(lambda _, name=name: ended.append(name)) for name in "1234")
        for reader in (has_all, deaf, has_later, lazy):
            book.opened(reader)
        book.takes(lazy)
        book.took(has_all, 5)
        await book.have(5, await book.settled())
        book.took(has_all, 6)
        book.took(has_later, 6)
        while len(ended) < 2:
            await asyncio.sleep(0)
        assert set(ended) == {"2", "3"}
        book.end_all("the end")
        assert set(ended[2:]) >= {"1", "4"}

    run(scenario)


# Files


def test_generated_modules_are_those_of_the_proto_file(tmp_path: Path) -> None:
    proto, made = "examples/messenger/proto/messenger.proto", tmp_path / "made"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--descriptor_set_out={made}", proto]
    subprocess.run(command, cwd=ROOT, check=True)
    (expected,) = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    found = descriptor_pb2.FileDescriptorProto()
    messenger_pb2.DESCRIPTOR.CopyToProto(found)
    for one in (expected, found):
        for field in (field for message in one.message_type for field in message.field):
            field.ClearField("json_name")
    assert found == expected


@pytest.mark.parametrize("name", ["server.dockerfile", "client.dockerfile"])
def test_dockerfiles_name_what_is_there(name: str) -> None:
    text = (HERE / name).read_text()
    copied = [path for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for path in line.split()]
    assert copied and all((ROOT / path).exists() for path in copied)
    (module,) = re.findall(r'^CMD \["python", "-m", "([\w.]+)"\]$', text, re.MULTILINE)
    assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    assert re.search(r"^FROM python:\d+\.\d+\.\d+-", text, re.MULTILINE)


def test_the_client_s_image_has_every_module_that_the_client_needs(tmp_path: Path) -> None:
    text = (HERE / "client.dockerfile").read_text()
    copied = [path for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for path in line.split()]
    code = (
        "import sys, examples.messenger.client.client; "
        "print([m for m in sys.modules if m == 'prpc' or m.startswith('examples.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = re.findall(r"'([\w.]+)'", done.stdout)
    assert "prpc" not in modules
    for module in modules:
        path = Path(module.replace(".", "/"))
        file = f"{path}.py" if (ROOT / f"{path}.py").exists() else f"{path}/__init__.py"
        assert any(file == one or file.startswith(one + "/") for one in copied), f"{file} is not in the image"


def test_compose_file_fits_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (HERE / "docker-compose.yml").read_text()
    assert set(re.findall(r"dockerfile: (\S+)", text)) == {
        "examples/messenger/server.dockerfile",
        "examples/messenger/client.dockerfile",
    }
