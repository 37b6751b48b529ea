"""What a task knows of its progress and whom it tells; with a broker that delivers what the test says."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine
from typing import Any
from uuid import UUID, uuid4

import pytest
from client_kit import PATIENCE, FlakyBroker, memory_settings, reply_to

from prpc.app_client import AsyncClient, AwaitableTask, Client
from prpc.brokers.base import Mail
from prpc.codec.signing import MAIL, REPLY, Signatures
from prpc.exceptions import ClientTimeOutError, DecodeError
from prpc.progress import Progress
from prpc.protocol.mail import write_progress

KEY = "the-key-of-the-progress-" + "1" * 20


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> FlakyBroker:
    broker = FlakyBroker()
    monkeypatch.setattr("prpc.client.connection.create_broker", lambda settings: broker)
    return broker


def client_of(**more: Any) -> AsyncClient:
    return AsyncClient("memory", memory_settings().url_broker, "q", **more)


async def eventually(happened: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def id_of(task: AwaitableTask[Any]) -> UUID:
    return task.message.message_id


def mail(task: AwaitableTask[Any], *said: Any) -> bytes:
    return write_progress(id_of(task), Progress(*said))


async def sent(flaky: FlakyBroker, count: int = 1) -> None:
    await eventually(lambda: len(flaky.published) == count)


def test_a_task_knows_the_last_word_and_tells_each_in_order(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task, heard = client.call("f"), []
            assert task.progress is None
            task.on_progress(heard.append)
            await sent(flaky)
            flaky.post(Mail([mail(task, 1), mail(task, 2, 4), mail(task, 3, 4, "three"), reply_to(flaky.published[0], "r")]))
            assert await task == "r"
            assert heard == [Progress(1), Progress(2, 4), Progress(3, 4, "three")]
            assert task.progress == heard[-1]

    run(scenario())


def test_who_asks_later_is_told_the_last_word_at_once(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task, early, late = client.call("f"), [], []
            await sent(flaky)
            flaky.post(Mail([mail(task, 1), mail(task, 2)]))
            await eventually(lambda: task.progress == Progress(2))
            task.on_progress(early.append)
            assert early == [Progress(2)]
            flaky.post(Mail([mail(task, 3), reply_to(flaky.published[0], None)]))
            await task
            task.on_progress(late.append)
            assert (early, late) == ([Progress(2), Progress(3)], [Progress(3)])
            assert task.progress == Progress(3)

    run(scenario())


def test_several_callbacks_and_what_ends_one(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task, one, two = client.call("f"), [], []
            stop = task.on_progress(one.append)

            def once(progress: Progress) -> None:
                two.append(progress)
                stop_two()

            stop_two = task.on_progress(once)
            await sent(flaky)
            flaky.post(Mail([mail(task, 1), mail(task, 2)]))
            await eventually(lambda: len(one) == 2)
            stop()
            stop()
            flaky.post(Mail([mail(task, 3), reply_to(flaky.published[0], None)]))
            await task
            assert (one, two) == ([Progress(1), Progress(2)], [Progress(1)])
            assert task.progress == Progress(3)

    run(scenario())


def test_a_callback_may_add_another(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task, inner = client.call("f"), []
            stop = task.on_progress(lambda _: (stop(), task.on_progress(inner.append)))
            await sent(flaky)
            flaky.post(Mail([mail(task, 1), mail(task, 2), reply_to(flaky.published[0], None)]))
            await task
            assert inner == [Progress(1), Progress(2)]

    run(scenario())


def test_a_callback_that_fails_is_logged_and_does_no_harm(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task, heard = client.call("f"), []

            def fail(progress: Progress) -> None:
                raise RuntimeError(f"at {progress.done}")

            task.on_progress(fail)
            task.on_progress(heard.append)
            await sent(flaky)
            flaky.post(Mail([mail(task, 1), mail(task, 2), reply_to(flaky.published[0], 7)]))
            assert await task == 7
            assert heard == [Progress(1), Progress(2)]

    with caplog.at_level(logging.ERROR, "prpc.client"):
        run(scenario())
    assert [record.message for record in caplog.records] == ["a callback for the progress of f() failed"] * 2
    assert "at 1" in caplog.text and "at 2" in caplog.text


def test_calls_that_are_unknown_or_have_ended_hear_nothing(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task, other = client.call("f"), client.call("g")
            heard: list[Progress] = []
            task.on_progress(heard.append)
            await sent(flaky, 2)
            stranger = write_progress(uuid4(), Progress(1))
            flaky.post(Mail([stranger, reply_to(flaky.published[0], 1), mail(task, 9), reply_to(flaky.published[1], 2)]))
            assert await other == 2
            assert await task == 1
            assert (heard, task.progress, other.progress) == ([], None, None)
            cancelled = client.call("f")
            cancelled.cancel()
            last = client.call("g")
            await sent(flaky, 4)
            flaky.post(Mail([mail(cancelled, 1), reply_to(flaky.published[-1], 3)]))
            assert await last == 3
            assert cancelled.progress is None

    run(scenario())


def test_mail_of_unknown_kinds_and_hostile_mail_do_no_harm(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await sent(flaky)
            said = mail(task, 1)
            hostile = [said[:-1], said.replace(b'"done": 1', b'"done": -1'), said.replace(b'"done": 1', b'"message": 1')]
            unknown = [b'{"prpc_mail": "of a later version"}', b'{"prpc_mail"', b'{"prpc_mail": 3}']
            flaky.post(Mail([*hostile, *unknown, b'{"prpc_mail": "later"}', reply_to(flaky.published[0], 7)]))
            assert await task == 7
            assert task.progress is None

    with caplog.at_level(logging.INFO, "prpc.client"):
        run(scenario())
    refused = [record.message for record in caplog.records]
    assert len(refused) == 3
    assert all(text.startswith("mail (progress) on queue 'q' at memory://") and "cannot be read" in text for text in refused)


def test_with_a_key_only_signed_mail_is_believed(flaky: FlakyBroker, caplog: pytest.LogCaptureFixture) -> None:
    ours, other_key, other_queue = Signatures(KEY, "q"), Signatures("another-key-" + "2" * 30, "q"), Signatures(KEY, "qq")
    flaky.now = lambda: 0.0  # type: ignore[attr-defined]

    async def scenario() -> None:
        async with client_of(secret_key=KEY) as client:
            task, heard = client.call("f"), []
            task.on_progress(heard.append)
            await sent(flaky)
            wrong = [mail(task, 1), other_key.sign(MAIL, mail(task, 2)), other_queue.sign(MAIL, mail(task, 3))]
            wrong += [ours.sign(REPLY, mail(task, 4)), ours.sign(MAIL, mail(task, 5)).replace(b'"done": 5', b'"done": 6')]
            flaky.post(Mail([*wrong, ours.sign(MAIL, mail(task, 7)), ours.sign(REPLY, reply_to(flaky.published[0], "r"))]))
            assert await task == "r"
            assert heard == [Progress(7)]

    with caplog.at_level(logging.WARNING, "prpc.client"):
        run(scenario())
    refused = [record.message.rpartition("refused: ")[2] for record in caplog.records]
    assert refused == ["it is not signed", *["its signature is wrong"] * 4]


def test_without_a_key_signed_mail_is_read_all_the_same(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await sent(flaky)
            flaky.post(Mail([Signatures(KEY, "q").sign(MAIL, mail(task, 1)), reply_to(flaky.published[0], None)]))
            await task
            assert task.progress == Progress(1)

    run(scenario())


def test_mail_that_stands_in_the_place_of_an_outcome_is_none(flaky: FlakyBroker) -> None:
    """Whoever wrote it there: what is collected is read as outcomes only."""

    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await sent(flaky)
            flaky.kept[id_of(task)] = mail(task, 1)
            flaky.post(Mail([], gap=True))
            with pytest.raises(DecodeError, match="what is kept as its outcome cannot be read"):
                await task
            assert task.progress is None

    run(scenario())


def test_plain_code_is_told_in_the_background_thread_and_stops_from_its_own(flaky: FlakyBroker) -> None:
    client = Client("memory", memory_settings().url_broker, "q")
    with client:
        task = client.call("f")
        heard: list[tuple[str, Progress]] = []
        news = threading.Semaphore(0)

        def hear(progress: Progress) -> None:
            heard.append((threading.current_thread().name, progress))
            news.release()

        stop = task.on_progress(hear)
        assert _until(lambda: bool(flaky.published))
        flaky.post(Mail([mail(task, 1)]))
        assert news.acquire(timeout=PATIENCE)
        stop()
        flaky.post(Mail([mail(task, 2), reply_to(flaky.published[0], "r")]))
        assert task.result(PATIENCE) == "r"
        assert heard == [("prpc-client", Progress(1))]
        assert task.progress == Progress(2)
        late = task.on_progress(hear)
        assert news.acquire(timeout=PATIENCE)
        late()
        assert heard[1:] == [("prpc-client", Progress(2))]


def _until(happened: Any) -> bool:
    changed = threading.Event()
    for _ in range(2000):
        if happened():
            return True
        changed.wait(0.01)
    return False


def test_a_task_whose_loop_is_gone_still_tells_its_last_word(flaky: FlakyBroker) -> None:
    found: list[AwaitableTask[Any]] = []

    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            found.append(task)
            await sent(flaky)
            flaky.post(Mail([mail(task, 1)]))
            await eventually(lambda: task.progress == Progress(1))
            with pytest.raises(ClientTimeOutError):
                await task.async_wait_result_task(0)

    run(scenario())
    heard: list[Progress] = []
    stop = found[0].on_progress(heard.append)
    stop()
    assert heard == [Progress(1)]


def test_progress_is_no_part_of_the_message(flaky: FlakyBroker) -> None:
    async def scenario() -> None:
        async with client_of() as client:
            task = client.call("f")
            await sent(flaky)
            flaky.post(Mail([mail(task, 1, 2, "half"), reply_to(flaky.published[0], None)]))
            await task
            assert "half" not in json.dumps(task.message.func_kwargs) + repr(task)

    run(scenario())
