"""The pump: connecting, sending, delivering, repairing, leaving; with a broker that fails as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from client_kit import FlakyBroker, memory_settings, reply_to, served, unavailable

from prpc.app_client import AsyncClient, AwaitableTask, Client, OutgoingCall, Proceed, gather
from prpc.brokers.base import Mail
from prpc.call_context import CurrentCall, bind_current_call
from prpc.deadline import Deadline, SystemClock
from prpc.exceptions import BrokerUnavailableError, CallCancelledError, CallError, ClientTimeOutError, DecodeError, EncodeError


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> FlakyBroker:
    broker = FlakyBroker()
    monkeypatch.setattr("prpc.client.connection.create_broker", lambda settings: broker)
    return broker


def client_of(**more: Any) -> AsyncClient:
    settings = memory_settings()
    return AsyncClient("memory", settings.url_broker, "q", **more)


async def eventually(happened: Any) -> None:
    """Turn the loop until something came true."""
    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_nothing_is_connected_before_the_first_call(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        client = client_of()
        await asyncio.sleep(0)
        assert flaky.connects == 0
        await client.close()
        assert flaky.closed == 0

    run(scenario())


def test_one_connection_serves_any_number_of_calls(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            tasks = [client.call("f", number) for number in range(5000)]
            await eventually(lambda: len(flaky.published) == 5000)
            flaky.post(Mail([reply_to(call, number) for number, call in enumerate(flaky.published)]))
            assert await gather(*tasks) == list(range(5000))
        assert flaky.connects == 1
        assert sorted(flaky.forgotten) == sorted(task.message.message_id for task in tasks)

    run(scenario())


def test_every_call_carries_the_reply_address_and_what_is_left_of_its_time(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            client.call("f")
            task = client.options(timeout=50).call("f")
            await eventually(lambda: len(flaky.published) == 2)
            assert flaky.published[0].facts == {"reply_to": "here"}
            assert 40_000 < int(flaky.published[1].facts["timeout_ms"]) <= 50_000
            task.cancel()

    run(scenario())


def test_a_broker_that_hangs_is_named_unavailable_within_the_connect_timeout(flaky: FlakyBroker) -> None:
    flaky.hangs = True

    async def scenario() -> None:
        async with client_of(connect_timeout=0.02) as client:
            with pytest.raises(BrokerUnavailableError, match=r"memory://\w+ did not answer within 0.02 s"):
                await client.call("f")
        assert flaky.closed == 1

    run(scenario())


def test_a_short_deadline_ends_a_call_while_the_connection_is_still_tried(flaky: FlakyBroker) -> None:
    flaky.hangs = True

    async def scenario() -> None:
        async with client_of(connect_timeout=0.5) as client:
            with pytest.raises(ClientTimeOutError):
                await client.options(timeout=0.01).call("f")
        assert flaky.published == []

    run(scenario())


def test_a_call_that_could_not_be_published_ends_with_that_error(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    flaky.publish_error = unavailable()

    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            for _ in range(2):
                with pytest.raises(BrokerUnavailableError, match="away"):
                    await task
            assert not caplog.records
            unseen = client.call("f")
            await eventually(unseen.is_done_task)
            assert not caplog.records  # somebody may still come for it
        assert "1 calls could not be sent to queue 'q'" in caplog.text

    run(scenario())


def test_what_a_broker_refuses_on_the_spot_is_the_outcome_too(flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(queue: str, call: object) -> None:
        raise EncodeError("too large")

    monkeypatch.setattr(flaky, "publish", refuse)

    async def scenario() -> None:
        async with client_of() as client:
            with pytest.raises(EncodeError, match="too large"):
                await client.call("f")

    run(scenario())


def test_a_publish_that_was_cancelled_leaves_its_call_open(flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled(queue: str, call: object) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    monkeypatch.setattr(flaky, "publish", cancelled)

    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            with pytest.raises(ClientTimeOutError):
                await task.async_wait_result_task(0.02)
        with pytest.raises(CallError, match="closed"):
            await task

    run(scenario())


def test_calls_of_one_tick_may_share_one_confirmation(flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[asyncio.Future[None]] = []

    def publish(queue: str, call: Any) -> asyncio.Future[None]:
        flaky.published.append(call)
        if not shared:
            shared.append(asyncio.get_running_loop().create_future())
        return shared[0]

    monkeypatch.setattr(flaky, "publish", publish)

    async def scenario() -> None:
        async with client_of() as client:
            tasks = [client.call("f") for _ in range(3)]
            await eventually(lambda: len(flaky.published) == 3)
            shared[0].set_exception(unavailable())
            results = await gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [BrokerUnavailableError] * 3

    run(scenario())


def test_the_first_reply_wins(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await eventually(lambda: bool(flaky.published))
            call = flaky.published[0]
            flaky.post(Mail([reply_to(call, "first"), reply_to(call, "second")]))
            assert await task == "first"
            flaky.post(Mail([reply_to(call, "third")]))
            await eventually(lambda: len(flaky.forgotten) == 3)
            assert await task == "first"

    run(scenario())


def test_a_reply_that_cannot_be_read_stops_nothing(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await eventually(lambda: bool(flaky.published))
            flaky.post(Mail([b"{nonsense", reply_to(flaky.published[0], 1)]))
            assert await task == 1
        assert "was refused" in caplog.text

    run(scenario())


def test_a_refused_reply_whose_id_can_be_read_ends_its_call(flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await eventually(lambda: bool(flaky.published))

            def refuse(self: object, body: bytes) -> None:
                raise DecodeError("a hostile tag", reason="tag", message_id=body.decode())

            monkeypatch.setattr("prpc.codec.Codec.read_reply", refuse)
            flaky.post(Mail([str(uuid4()).encode(), str(task.message.message_id).encode()]))
            with pytest.raises(DecodeError, match="hostile"):
                await task

    run(scenario())


def test_rubbish_in_the_place_of_a_result_ends_its_call_alone(flaky: FlakyBroker) -> None:
    """A server that finds something stored wakes the caller with it: nothing in it says whose it is, but its key does."""

    async def scenario() -> None:
        async with client_of() as client:
            tasks = [client.call("f") for _ in range(3)]
            await eventually(lambda: len(flaky.published) == 3)
            flaky.kept[tasks[0].message.message_id] = b"rubbish"
            flaky.kept[tasks[1].message.message_id] = reply_to(flaky.published[2], 2)  # of another call
            flaky.post(Mail([b"rubbish", b"rubbish"]))
            for task in tasks[:2]:
                with pytest.raises(DecodeError, match="what is kept as its outcome") as caught:
                    await task
                assert caught.value.message_id == str(task.message.message_id)
            assert await tasks[2] == 2
            assert len(flaky.collected) == 1

    run(scenario())


def test_after_a_gap_everything_still_waited_for_is_collected(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            tasks = [client.call("f") for _ in range(3)]
            await eventually(lambda: len(flaky.published) == 3)
            flaky.post(Mail([reply_to(flaky.published[0], 0)]))
            await tasks[0]
            flaky.kept[tasks[1].message.message_id] = reply_to(flaky.published[1], 1)
            flaky.post(Mail([], gap=True))
            assert await tasks[1] == 1
            assert flaky.collected == [[tasks[1].message.message_id, tasks[2].message.message_id]]
            assert not tasks[2].is_done_task()

    run(scenario())


def test_collecting_is_tried_again_until_the_broker_answers(
    flaky: FlakyBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("prpc.client.repair.COLLECT_DELAYS", (0.001, 0.002))
    flaky.collect_errors = [unavailable(), unavailable()]

    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await eventually(lambda: bool(flaky.published))
            flaky.kept[task.message.message_id] = reply_to(flaky.published[0], 1)
            flaky.post(Mail([], gap=True))
            assert await task == 1
        assert len(flaky.collected) == 3
        assert "could not be collected" in caplog.text

    run(scenario())


def test_a_gap_while_nothing_is_waited_for_asks_nothing(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await eventually(lambda: bool(flaky.published))
            flaky.post(Mail([reply_to(flaky.published[0], 0)]))
            await task
            flaky.post(Mail([], gap=True))
            flaky.post(Mail([reply_to(flaky.published[0], 0)]))
            await eventually(lambda: len(flaky.forgotten) == 2)
        assert flaky.collected == []

    run(scenario())


def test_a_mailbox_that_is_lost_for_good_ends_the_calls_and_the_next_call_connects_anew(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await eventually(lambda: bool(flaky.published))
            flaky.post(unavailable())
            with pytest.raises(BrokerUnavailableError):
                await task
            again = client.call("f")
            await eventually(lambda: len(flaky.published) == 2)
            flaky.post(Mail([reply_to(flaky.published[1], 2)]))
            assert await again == 2
        assert flaky.connects == 2

    run(scenario())


def test_a_result_that_comes_after_the_deadline_is_removed_all_the_same(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.options(timeout=0.01).call("f")
            with pytest.raises(ClientTimeOutError):
                await task
            flaky.post(Mail([reply_to(flaky.published[0], 1)]))
            await eventually(lambda: flaky.forgotten == [task.message.message_id])
            with pytest.raises(ClientTimeOutError):
                await task

    run(scenario())


def test_a_cancelled_await_cancels_the_call(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await eventually(lambda: bool(flaky.published))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await task
            await eventually(lambda: flaky.broadcasts == [task.message.message_id])
            with pytest.raises(CallCancelledError):
                await task

    run(scenario())


def test_a_cancelled_await_leaves_the_call_to_others_who_wait(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")

            async def wait() -> Any:
                return await task

            first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
            await eventually(lambda: bool(flaky.published))
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            flaky.post(Mail([reply_to(flaky.published[0], 1)]))
            assert await second == 1
        assert flaky.broadcasts == []

    run(scenario())


def test_a_cancelled_gather_cancels_its_calls(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            tasks = [client.call("f") for _ in range(3)]
            await eventually(lambda: len(flaky.published) == 3)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await gather(*tasks)
            await eventually(lambda: len(flaky.broadcasts) == 3)
            assert all(task.is_done_task() for task in tasks)

    run(scenario())


def test_a_call_cancelled_before_it_was_sent_is_not_sent(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            dropped, kept = client.options(timeout=60).call("dropped"), client.call("kept")
            assert dropped.cancel()
            await eventually(lambda: bool(flaky.published))
        assert [call.message_id for call in flaky.published] == [kept.message.message_id]
        assert flaky.broadcasts == []

    run(scenario())


def test_a_cancellation_that_cannot_be_sent_is_logged(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    flaky.broadcast_error = unavailable()

    async def scenario() -> None:
        async with client_of() as client:
            task = client.options(timeout=60).call("f")
            await eventually(lambda: bool(flaky.published))
            task.cancel()
        assert "a cancellation could not be sent" in caplog.text

    run(scenario())


def test_calls_inherit_what_is_left_of_the_call_that_makes_them(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        clock = SystemClock()
        async with client_of() as client:
            bind_current_call(CurrentCall("id", "outer", {}, Deadline.after(clock, 20.0)))
            inherited, shorter, longer = (
                client.call("f"),
                client.options(timeout=5).call("f"),
                client.options(timeout=500).call("f"),
            )
            bind_current_call(CurrentCall("id", "outer", {}, Deadline.after(clock, 0.0)))
            expired = client.call("f")
            bind_current_call(CurrentCall("id", "outer", {}, Deadline(None)))
            free = client.call("f")
            with pytest.raises(ClientTimeOutError):
                await expired
            await eventually(lambda: len(flaky.published) == 4)
            left = {call.message_id: call.facts.get("timeout_ms") for call in flaky.published}
            assert 15_000 < int(left[inherited.message.message_id] or 0) <= 20_000
            assert 4_000 < int(left[shorter.message.message_id] or 0) <= 5_000
            assert 15_000 < int(left[longer.message.message_id] or 0) <= 20_000
            assert left[free.message.message_id] is None

    run(scenario())


def test_calls_that_nobody_holds_leave_nothing_behind(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            for _ in range(100):
                client.call("f")
            await eventually(lambda: len(flaky.published) == 100)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gc.collect()
            assert len(client.channel.pump().pending) == 0
            flaky.post(Mail([reply_to(call, None) for call in flaky.published]))
            await eventually(lambda: len(flaky.forgotten) == 100)

    run(scenario())


def test_the_end_of_the_loop_sends_what_was_made_and_closes(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        client = client_of()
        client.call("f")

    for number in range(1, 4):
        asyncio.run(scenario())
        assert len(flaky.published) == number
        assert flaky.closed >= number
    assert "destroyed" not in caplog.text


def test_the_end_of_the_loop_cancels_what_is_awaited(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        client = client_of()

        async def wait() -> None:
            await client.call("f")

        waiting = asyncio.create_task(wait())
        await eventually(lambda: bool(flaky.published))
        assert not waiting.done()

    asyncio.run(scenario())
    assert flaky.broadcasts == [flaky.published[0].message_id]


def test_closing_while_the_connection_is_tried_still_sends(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        flaky.hangs = True
        client = client_of(connect_timeout=5)
        client.call("f")
        await eventually(lambda: flaky.connects == 1)
        flaky.hangs = False
        await client.close()
        assert len(flaky.published) == 1

    run(scenario())


def test_closing_while_the_broker_is_away_says_what_was_lost(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        flaky.hangs = True
        client = client_of(connect_timeout=0.05)
        task = client.call("f")
        await eventually(lambda: flaky.connects == 1)
        await client.close()
        with pytest.raises(BrokerUnavailableError):
            await task
        assert "may be unsent" in caplog.text

    run(scenario())


def test_a_broker_that_does_not_close_cleanly_hinders_nobody(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    flaky.close_error = OSError("no")

    async def scenario() -> None:
        client = client_of()
        client.call("f")
        await client.close()
        assert "did not close cleanly" in caplog.text

    run(scenario())


def test_a_call_made_while_a_lost_connection_is_being_left_gets_a_new_one(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        client = client_of()
        first = client.call("f")
        await eventually(lambda: bool(flaky.published))
        flaky.close_waits = asyncio.Event()
        flaky.post(unavailable())
        with pytest.raises(BrokerUnavailableError):
            await first
        await eventually(lambda: flaky.closed > 0)
        second = client.call("f")
        flaky.close_waits.set()
        await eventually(lambda: len(flaky.published) == 2)
        flaky.post(Mail([reply_to(flaky.published[1], 2)]))
        assert await second == 2
        await client.close()

    run(scenario())


def test_middleware_that_comes_late_finds_the_client_closed(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        late = asyncio.Event()

        async def wait(call: OutgoingCall, proceed: Proceed) -> Any:
            await late.wait()
            return await proceed(call)

        client = client_of(middleware=[wait])
        task = client.call("f")
        await asyncio.sleep(0)
        await client.close()
        late.set()
        with pytest.raises(CallError, match="closed before"):
            await task
        assert flaky.published == []

    run(scenario())


def test_a_question_for_servers_that_was_given_up_hinders_nobody(flaky: FlakyBroker) -> None:
    flaky.hangs = True

    async def scenario() -> None:
        client = client_of(connect_timeout=0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.servers()
        with pytest.raises(BrokerUnavailableError):
            await client.servers()
        await client.close()

    run(scenario())


def test_several_closes_at_once_are_one(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        client = client_of()
        client.call("f")
        await eventually(lambda: bool(flaky.published))
        pump = client.channel.pump()
        await asyncio.gather(pump.close(), pump.close(), client.close())
        assert flaky.closed == 2  # mailbox and broker

    run(scenario())


def test_a_client_left_open_in_another_loop_is_closed_from_here() -> None:
    with served() as server:
        client = AsyncClient("memory", server.settings.url_broker, "q")
        ready, leave = threading.Event(), threading.Event()

        async def elsewhere() -> None:
            assert await client.call("add", 1) == 11
            ready.set()
            await asyncio.to_thread(leave.wait)

        thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
        thread.start()
        ready.wait()
        pump = next(iter(client.channel._pumps.values()))
        asyncio.run(client.close())
        assert pump.closed
        leave.set()
        thread.join()


def test_a_plain_client_is_closed_in_a_coroutine_without_blocking_its_loop() -> None:
    with served() as server:

        async def scenario() -> None:
            with Client("memory", server.settings.url_broker, "q") as client:
                assert await client.call("add", 1) == 11
                left = client.call("silent")
                pump = client.channel.pump()
                sent = client.call("echo", "sent before the close")
            assert pump.closed and not pump.usable
            with pytest.raises(CallError, match="closed before"):
                await left
            with contextlib.suppress(CallError):  # sent for sure; answered if the server was faster than the close
                await sent
            assert await client.call("add", 2) == 12
            client.close()
            client.close()

        run(scenario())
        server.until(lambda: server.names() == ["add", "silent", "echo", "add"])


def test_a_close_begun_in_a_coroutine_ends_before_its_loop_does(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        client = Client("memory", "memory://flaky", "q")
        client.close()  # nothing to close yet
        client.call("f")
        client.close()

    run(scenario())
    assert len(flaky.published) == 1 and flaky.closed == 2


def test_settings_reach_the_client() -> None:
    client = Client("memory", "memory://a", "orders", connect_timeout=3)
    assert client.queue == "orders"
    assert client.channel.settings.connect_timeout == 3
    assert "orders" in repr(client)
    with pytest.raises(TypeError, match="no_such_setting"):
        Client(no_such_setting=1)


def test_the_longest_timeout_is_no_deadline_for_the_server() -> None:
    with served() as server, Client("memory", server.settings.url_broker, "q") as client:
        task = client.options(timeout=timedelta.max).call("add", 1)
        assert task.result(20) == 11
        assert server.facts[task.message.message_id].timeout is None


def test_a_call_that_no_server_could_read_is_refused_at_once() -> None:
    client = Client("memory", "memory://a", "orders")
    with pytest.raises(EncodeError, match="name of the function is no text"):
        client.call(5)  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="keyword argument's name is no text"):
        AwaitableTask("f", (), {1: 2}, client=client)  # type: ignore[dict-item]


def test_options_that_cannot_be_used_are_refused() -> None:
    client = Client("memory", "memory://a", "orders")
    with pytest.raises(ValueError, match="timeout=0"):
        client.options(timeout=0)
    with pytest.raises(ValueError, match="not a number"):
        client.options(timeout=float("nan"))
    with pytest.raises(TypeError, match="header"):
        client.options(headers={"a": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="20009 bytes as JSON, allowed are 16384"):
        client.options(headers={"a": "b" * 20_000})
    with pytest.raises(ValueError, match="surrogates"):
        client.options(headers={"a": "\ud800"})
    assert os.environ.get("PRPC_TYPE_BROKER") is None
