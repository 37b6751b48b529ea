"""With a key on both sides: whoever can write to the broker, and has no key, gets nothing run and no outcome believed."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from prpc.app_client import AsyncClient, AwaitableTask
from prpc.app_server import AppServer
from prpc.brokers.memory import MemoryBroker
from prpc.brokers.memory_queue import Entry, Hold
from prpc.brokers.memory_space import Space
from prpc.codec import Codec
from prpc.codec.signing import CONTROL, REPLY, Signatures
from prpc.exceptions import CallCancelledError, ClientTimeOutError, DecodeError
from prpc.names import QueueNames
from prpc.protocol.facts import Event, read_control, write_cancel, write_event
from prpc.prpcmessage import PRPCMessage

KEY, OLD = "the-key-of-the-house-" + "1" * 20, "the-key-of-last-year-" + "2" * 20
QUEUE = "q"
SECRET = "a text that no log may hold"


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


@dataclass
class House:
    """A server, and what somebody sees and does who can write to its broker."""

    app: AppServer
    broker: MemoryBroker
    ran: list[Any] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def space(self) -> Space:
        return self.broker._space

    def client(self, secret_key: str | None = KEY) -> AsyncClient:
        return AsyncClient("memory", self.app.settings.url_broker, QUEUE, secret_key=secret_key)

    def message(self, *args: Any, name: str = "note") -> tuple[UUID, bytes]:
        message = PRPCMessage(name, args, {}, uuid4(), datetime.now(UTC))
        return message.message_id, Codec().write_call(message)

    def put(self, body: bytes, facts: Mapping[str, str], *, raw: bool = False) -> None:
        self.broker.put_raw(QUEUE, body, dict(facts), raw=raw)

    async def refused(self, count: int = 1) -> list[str]:
        """Reasons of the dead letters, once there are so many."""
        while len(letters := self.space.dead_letters(QUEUE)) < count:
            await asyncio.sleep(0)
        return [letter.reason for letter in letters]

    def kept(self, message_id: UUID, *, raw: bool = False) -> bytes | None:
        names = QueueNames(QUEUE)
        key = names.raw_feedback(message_id) if raw else names.feedback(message_id)
        return self.space.collect([(message_id, key)]).get(message_id)

    def mail(self, body: bytes) -> None:
        """Put a text into every mailbox."""
        for inbox in self.space._queue(QUEUE).mailboxes.values():
            inbox.put(body)

    def forge(self, message_id: UUID, result: Any) -> tuple[bytes, bytes]:
        """A reply as a server writes it, for the key and for the mailbox."""
        now = datetime.now(UTC)
        written = Codec().write_reply(PRPCMessage("note", (), {}, message_id, now).done(now, result), None, for_us=True)
        return written.body, written.wake


@asynccontextmanager
async def house(key: str = KEY, **settings: Any) -> AsyncIterator[House]:
    app = AppServer("memory", f"memory://{uuid4().hex}", "async", name_queue=QUEUE, secret_key=key, **settings)
    broker = MemoryBroker(app.settings)
    await broker.connect()
    found = House(app, broker)

    async def note(text: Any) -> Any:
        found.ran.append(text)
        return text

    async def hold(text: Any) -> Any:
        found.ran.append(text)
        await found.gate.wait()
        return text

    async def told(text: Any) -> None:
        found.ran.append(text)

    app.register_funcs(note, hold)
    app.register_func(told, broadcast=True)
    server = asyncio.create_task(app.serve())
    await app.ready
    try:
        yield found
    finally:
        found.gate.set()
        await app.stop(grace=5)
        await server
        await broker.close()


def recorded(at: House, monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """What enters the queue from now on."""
    entries: list[Entry] = []
    finish = at.space.finish

    def note(queue: str, hold: Hold, *rest: Any) -> bool:
        entries.append(hold.entry)
        return finish(queue, hold, *rest)

    monkeypatch.setattr(at.space, "finish", note)
    return entries


async def until_running(at: House, count: int = 1) -> None:
    while len(at.ran) < count:
        await asyncio.sleep(0)


async def outcome(task: AwaitableTask[Any]) -> BaseException:
    with pytest.raises(Exception) as caught:
        await task
    return caught.value


class TestCalls:
    def test_both_sides_with_the_key_work_as_without(self) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                assert await client.ping() == "pong"
                assert len(await client.get_function_server()) == 4
                assert await client.call("note", {"a": (1, 2)}) == {"a": (1, 2)}
                assert isinstance(await outcome(client.call("nobody")), LookupError)

        run(scenario)

    @pytest.mark.parametrize("raw", [False, True])
    @pytest.mark.parametrize("facts", [{}, {"reply_to": "me", "timeout_ms": "5000"}, {"signature": ""}, {"signature": "0" * 64}])
    def test_unsigned_and_wrongly_signed_calls_are_not_run(self, facts: dict[str, str], raw: bool) -> None:
        async def scenario() -> None:
            async with house() as at:
                message_id, body = at.message(SECRET)
                if raw:
                    body = json.dumps({"func_name": "note", "func_args": [SECRET], "message_id": str(message_id)}).encode()
                at.put(body, facts, raw=raw)
                assert await at.refused() == ["signature"]
                assert at.ran == []
                assert at.kept(message_id) is None
                assert at.kept(message_id, raw=True) is None

        run(scenario)

    def test_an_entry_without_a_message_is_buried(self) -> None:
        async def scenario() -> None:
            async with house() as at:
                at.broker.put_raw(QUEUE, None, {"reply_to": "me"}, raw=False)
                assert await at.refused() == ["form"]

        run(scenario)

    @pytest.mark.parametrize(
        "change", ["body", "reply_to", "timeout_ms", "headers", "schema", "signed_ms", "added", "stripped", "raw"]
    )
    def test_what_was_signed_for_one_call_fits_no_other(self, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                entries = recorded(at, monkeypatch)
                await client.options(timeout=20, headers={"user": "me"}).call("note", "one")
                (entry,) = entries
                facts, body = dict(entry.facts), entry.body
                assert body is not None
                match change:
                    case "body":
                        body = at.message("two")[1]
                    case "added":
                        facts["idempotent"] = "1"
                    case "stripped":
                        del facts["signature"]
                    case "raw":
                        pass
                    case name:
                        facts[name] = facts.get(name, "") + "0"
                at.put(body, facts, raw=change == "raw")
                assert await at.refused() == ["signature"]
                assert at.ran == ["one"]

        run(scenario)

    def test_a_signed_call_is_worth_nothing_in_another_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario() -> None:
            async with house() as at, house() as other, at.client() as client:
                entries = recorded(at, monkeypatch)
                await client.call("note", "one")
                signed = Signatures(KEY, "q2").sign_call(entries[0].body or b"", {}, time.time())
                other.put(entries[0].body or b"", signed)
                assert await other.refused() == ["signature"]
                assert other.ran == []

        run(scenario)

    @pytest.mark.parametrize(("age", "facts"), [(301.0, {}), (30.0, {"timeout_ms": "10000"}), (-301.0, {})])
    def test_a_call_that_was_signed_long_before_it_came_is_refused(self, age: float, facts: dict[str, str]) -> None:
        async def scenario() -> None:
            async with house() as at:
                _, body = at.message("late")
                at.put(body, Signatures(KEY, QUEUE).sign_call(body, facts, at.broker.now() - age))
                assert await at.refused() == ["signature"]
                assert at.ran == []

        run(scenario)

    def test_waiting_in_the_queue_does_not_make_a_signature_old(self) -> None:
        async def scenario() -> None:
            async with house() as at:
                for facts in ({}, {"timeout_ms": "60000"}):
                    _, body = at.message(len(facts))
                    signed = Signatures(KEY, QUEUE).sign_call(body, facts, at.broker.now() - 3600)
                    entry = Entry(body, signed, False, time.monotonic() - 3600)
                    with at.space._lock:
                        at.space._queue(QUEUE).put(entry)
                await until_running(at)
                while at.space.size(QUEUE) > 2:  # both outcomes are kept
                    await asyncio.sleep(0)
                assert at.ran == [0]
                assert at.space.dead_letters(QUEUE) == []

        run(scenario)

    def test_a_deadline_that_passed_in_the_queue_is_answered_as_ever(self) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                assert await client.call("note", "first") == "first"
                (address,) = at.space._queue(QUEUE).mailboxes
                _, body = at.message("late")
                facts = Signatures(KEY, QUEUE).sign_call(body, {"reply_to": address, "timeout_ms": "1000"}, at.broker.now() - 2)
                with at.space._lock:
                    at.space._queue(QUEUE).put(Entry(body, facts, False, time.monotonic() - 2))
                while at.space.size(QUEUE) > 1:
                    await asyncio.sleep(0)
                assert at.ran == ["first"]
                assert at.space.dead_letters(QUEUE) == []

        run(scenario)

    def test_nothing_of_a_refused_call_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with house() as at:
                _, body = at.message(SECRET)
                at.put(body, {"headers": json.dumps({"token": SECRET})})
                at.put(body, {"signature": "f" * 64, "signed_ms": "1"})
                await at.refused(2)

        with caplog.at_level(logging.DEBUG, "prpc"):
            run(scenario)
        texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert texts == [
            "an entry was refused and is kept as a dead letter: the call is not signed",
            "an entry was refused and is kept as a dead letter: the call has a wrong signature",
        ]
        assert SECRET not in caplog.text
        assert KEY not in caplog.text
        assert "f" * 64 not in caplog.text


class TestReplies:
    def test_a_forged_outcome_is_not_believed(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                task = client.call("hold", "true")
                await until_running(at)
                body, wake = at.forge(task.message.message_id, SECRET)
                stranger = Signatures(OLD, QUEUE)
                other_queue = Signatures(KEY, "q2")
                forged = (body, wake, stranger.sign(REPLY, body), stranger.sign(REPLY, wake), other_queue.sign(REPLY, wake))
                for text in (*forged, Signatures(KEY, QUEUE).sign(CONTROL, wake)):
                    at.mail(text)
                at.gate.set()
                assert await task == "true"

        run(scenario)
        refusals = [record.getMessage() for record in caplog.records if record.name == "prpc.client"]
        assert len(refusals) == 6
        assert all(text.endswith(("it is not signed", "its signature is wrong")) for text in refusals)
        assert SECRET not in caplog.text

    def test_a_forged_stored_outcome_is_not_believed(self) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                task = client.options(timeout=0.5).call("hold", "true")
                await until_running(at)
                message_id = task.message.message_id
                body, _ = at.forge(message_id, "forged")
                at.space._kept[QueueNames(QUEUE).feedback(message_id)] = (body, time.monotonic() + 60)
                task.is_done_task(update_status=True)
                assert isinstance(await outcome(task), ClientTimeOutError)

        run(scenario)

    def test_the_reply_of_one_call_is_no_reply_of_another(self) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                first, second = client.call("hold", 1), client.call("hold", 2)
                await until_running(at, 2)
                ids = first.message.message_id, second.message.message_id
                signed = Signatures(KEY, QUEUE).sign(REPLY, at.forge(ids[0], 1)[1])
                at.mail(signed.replace(ids[0].hex.encode(), ids[1].hex.encode()))
                at.mail(signed)
                assert await first == 1
                assert not second.is_done_task()
                at.gate.set()
                assert await second == 2

        run(scenario)

    def test_stored_replies_are_signed_and_stay_readable(self) -> None:
        async def scenario() -> None:
            async with house() as at:
                signatures = Signatures(KEY, QUEUE)
                message_id, body = at.message("text")
                at.put(body, signatures.sign_call(body, {}, at.broker.now()))
                raw_id = uuid4()
                raw = json.dumps({"func_name": "note", "func_args": ["text"], "message_id": str(raw_id)}).encode()
                at.put(raw, signatures.sign_call(raw, {}, at.broker.now(), raw=True), raw=True)
                while (kept := at.kept(message_id)) is None or (kept_raw := at.kept(raw_id, raw=True)) is None:
                    await asyncio.sleep(0)
                assert Codec().read_reply(kept).result == Codec().read_reply(signatures.open(REPLY, kept)).result == "text"
                assert json.loads(kept_raw)["result"] == json.loads(signatures.open(REPLY, kept_raw))["result"] == "text"

        run(scenario)


class TestWhoHasNoKey:
    def test_a_client_without_a_key_learns_at_once_that_it_was_refused(self) -> None:
        async def scenario() -> None:
            async with house() as at, at.client(secret_key=None) as client:
                error = await outcome(client.call("note", SECRET))
                assert isinstance(error, DecodeError)
                assert (str(error), error.reason, at.ran) == ("the server refused the call", None, [])

        run(scenario)

    def test_a_client_with_a_wrong_key_believes_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with house() as at, at.client(secret_key=OLD) as client:
                assert isinstance(await outcome(client.options(timeout=0.3).call("note", 1)), ClientTimeOutError)
                assert at.ran == []

        run(scenario)
        assert "was refused: it is not signed" in caplog.text

    def test_a_client_with_a_key_does_not_believe_a_server_without(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with house(key="") as at, at.client() as client:
                assert isinstance(await outcome(client.options(timeout=0.3).call("note", 1)), ClientTimeOutError)
                assert at.ran == [1]  # the server without a key accepts everything, as ever

        run(scenario)
        assert "was refused: it is not signed" in caplog.text

    def test_a_refusal_does_not_decide_the_outcome_of_a_call_that_runs(self) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                task = client.call("hold", "true")
                await until_running(at)
                (address,) = at.space._queue(QUEUE).mailboxes
                at.put(Codec().write_call(task.message), {"reply_to": address})
                assert await at.refused() == ["signature"]
                assert at.kept(task.message.message_id) is None
                at.gate.set()
                assert await task == "true"

        run(scenario)


class TestRotation:
    @pytest.mark.parametrize(
        ("server", "client"),
        [(KEY, f"{KEY},{OLD}"), (f"{KEY},{OLD}", KEY), (f"{OLD},{KEY}", f"{KEY},{OLD}"), (f"{KEY},{OLD}", f"{OLD},{KEY}")],
    )
    def test_keys_change_without_a_stop(self, server: str, client: str) -> None:
        async def scenario() -> None:
            async with house(server) as at, at.client(secret_key=client) as caller:
                assert await caller.call("note", 1) == 1

        run(scenario)

    def test_a_key_that_was_taken_away_counts_no_more(self) -> None:
        async def scenario() -> None:
            async with house(f"{KEY}") as at:
                _, body = at.message(1)
                at.put(body, Signatures(f"{OLD},{KEY}", QUEUE).sign_call(body, {}, at.broker.now()))
                assert await at.refused() == ["signature"]

        run(scenario)


class TestEvents:
    def test_only_signed_events_are_heard(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                ear = await at.broker.listen(QUEUE)
                forged = write_event(Event(at.message("forged", name="told")[1], at.broker.now()))
                for body in (
                    forged,
                    Signatures(OLD, QUEUE).sign(CONTROL, forged),
                    Signatures(KEY, QUEUE).sign(REPLY, forged),
                    Signatures(KEY, "another queue").sign(CONTROL, forged),
                    Signatures(KEY, QUEUE).sign(CONTROL, forged).replace(b"forged", b"FORGED"),
                    Signatures(KEY, QUEUE).sign(CONTROL, forged).replace(b'"sent_ms": "1', b'"sent_ms": "2'),
                ):
                    await at.broker.broadcast(QUEUE, body)
                await client.call("told", "signed")
                while not at.ran:
                    await asyncio.sleep(0)
                assert at.ran == ["signed"] and caplog.text.count("a control message was refused") == 6
                bodies: list[bytes] = []
                while len(bodies) < 7:
                    bodies += await ear.receive()
                assert read_control(Signatures(KEY, QUEUE).open(CONTROL, bodies[-1])).event is not None

        run(scenario)

    def test_a_copied_event_is_not_run_again(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                ear = await at.broker.listen(QUEUE)
                await client.call("told", 1)
                (body,) = await ear.receive()
                await at.broker.broadcast(QUEUE, body)
                old = write_event(Event(at.message("old", name="told")[1], at.broker.now() - 301))
                await at.broker.broadcast(QUEUE, Signatures(KEY, QUEUE).sign(CONTROL, old))
                await client.call("told", 2)
                while len(at.ran) < 2:
                    await asyncio.sleep(0)
                assert at.ran == [1, 2] and "sent 301 s before" in caplog.text

        run(scenario)

    def test_an_unsigned_call_becomes_no_event(self) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                at.put(at.message("unsigned", name="told")[1], {})
                at.put(json.dumps({"func_name": "told", "func_args": ["raw"], "message_id": str(uuid4())}).encode(), {}, raw=True)
                assert await at.refused(2) == ["signature"] * 2
                await client.call("told", "signed")
                while not at.ran:
                    await asyncio.sleep(0)
                assert at.ran == ["signed"]

        run(scenario)


class TestCancellations:
    def test_only_a_signed_cancellation_stops_a_call(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                task = client.call("hold", 1)
                await until_running(at)
                cancel = write_cancel([task.message.message_id])
                await at.broker.broadcast(QUEUE, cancel)
                await at.broker.broadcast(QUEUE, Signatures(OLD, QUEUE).sign(CONTROL, cancel))
                await at.broker.broadcast(QUEUE, Signatures(KEY, QUEUE).sign(REPLY, cancel))
                while caplog.text.count("a control message was refused") < 3:
                    await asyncio.sleep(0)
                assert at.app.ready.is_set()
                await at.broker.broadcast(QUEUE, Signatures(KEY, QUEUE).sign(CONTROL, cancel))
                assert isinstance(await outcome(task), CallCancelledError)

        run(scenario)

    def test_a_client_signs_its_cancellations(self) -> None:
        async def scenario() -> None:
            async with house() as at, at.client() as client:
                ear = await at.broker.listen(QUEUE)
                task = client.call("hold", 1)
                await until_running(at)
                task.cancel()
                (body,) = await ear.receive()
                assert Signatures(KEY, QUEUE).open(CONTROL, body) == write_cancel([task.message.message_id])
                while at.space.size(QUEUE) != 1:  # it ended: only the stored outcome is left
                    await asyncio.sleep(0)

        run(scenario)
