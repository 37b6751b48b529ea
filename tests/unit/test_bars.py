"""The bars that tqdm draws for calls that say how far they are."""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import tqdm
from client_kit import PATIENCE

import prpc
from prpc import AppServer, AwaitableTask, Client, Progress, as_completed, current_call, gather, progress_bar
from prpc.testing import running

app = AppServer("memory", "memory://bars", max_number_worker=16)

#: What a function waits for before it goes on, by name; made by the test.
GATES: dict[str, threading.Event] = {}


@app.function(name="copy")
def copy(name: str, *said: Any) -> str:
    """Say one thing and wait for the test."""
    current_call().progress(*said)
    assert GATES[name].wait(PATIENCE)
    return name


@app.function(name="silent")
def silent(name: str) -> str:
    assert GATES[name].wait(PATIENCE)
    return name


@pytest.fixture(scope="module")
def client() -> Any:
    with running(app) as made:
        yield made


@pytest.fixture
def gates() -> Any:
    GATES.clear()
    yield GATES
    for gate in GATES.values():
        gate.set()


def call(client: Client, *args: Any, name: str = "copy") -> AwaitableTask[str]:
    GATES[args[0]] = threading.Event()
    return client.call(name, *args)


def said(task: AwaitableTask[Any]) -> None:
    """Wait until the function's word is there, and told to everybody who asked before."""
    heard = threading.Event()
    stop = task.on_progress(lambda _: heard.set())
    assert heard.wait(PATIENCE)
    stop()


class CountedBar(tqdm.tqdm):  # type: ignore[type-arg]
    """tqdm's bar, which is counted as long as it is open."""

    open: ClassVar[set[int]] = set()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        CountedBar.open.add(id(self))

    def close(self) -> None:
        CountedBar.open.discard(id(self))
        super().close()


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The bars that are open."""
    monkeypatch.setattr(tqdm, "tqdm", CountedBar)
    CountedBar.open.clear()
    return CountedBar.open


class Screen(io.StringIO):
    """What stands on a terminal, as far as it can be told from what was written."""

    def lines(self) -> list[str]:
        return [line for line in re.split(r"[\r\n]|\x1b\[A", self.getvalue()) if line.strip()]

    def shows(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.lines())


def test_one_call_moves_its_bar(client: Client, gates: Any) -> None:
    screen = Screen()
    task = call(client, "a", 3, 10, "third file")
    with progress_bar(task, file=screen) as same:
        assert same is task
        said(task)
        gates["a"].set()
        assert task.result(PATIENCE) == "a"
    assert screen.shows("copy:", "30%", "3/10", "third file")


def test_a_call_that_never_says_its_total(client: Client, gates: Any) -> None:
    screen = Screen()
    task = call(client, "a", 3)
    with progress_bar(task, file=screen):
        said(task)
    assert screen.shows("copy: 3it")


def test_several_calls_have_a_bar_each(client: Client, gates: Any) -> None:
    screen = Screen()
    tasks = [call(client, "a", 1, 4), call(client, "b", 2, 4), call(client, "c", name="silent")]
    with progress_bar((task for task in tasks), file=screen) as same:
        assert same == tasks
        for task in tasks[:2]:
            said(task)
        for gate in gates.values():
            gate.set()
        assert [task.result(PATIENCE) for task in tasks] == ["a", "b", "c"]
    assert screen.shows("copy:", "1/4")
    assert screen.shows("copy:", "2/4")
    assert screen.shows("silent: 0it")


def test_what_was_said_before_is_shown_and_nothing_after_the_end(client: Client, gates: Any) -> None:
    screen = Screen()
    task = call(client, "a", 3, 10)
    said(task)
    with progress_bar(task, file=screen):
        assert screen.shows("3/10")
    written = screen.getvalue()
    task.call.home.post(task.call.note, Progress(4, 10))
    said(task)
    assert task.progress == Progress(4, 10)
    assert screen.getvalue() == written
    gates["a"].set()
    assert task.result(PATIENCE) == "a"
    done = Screen()
    with progress_bar(task, file=done):
        assert done.shows("4/10")


def test_tqdm_gets_the_options(client: Client, gates: Any) -> None:
    screen, nothing = Screen(), Screen()
    task = call(client, "a", 3, 10)
    said(task)
    with progress_bar(task, file=screen, desc="mine", unit="file", leave=False), progress_bar(task, file=nothing, disable=True):
        assert screen.shows("mine:", "3/10", "file")
    assert nothing.getvalue() == ""


def test_a_message_cannot_speak_to_the_terminal(client: Client, gates: Any) -> None:
    screen = Screen()
    task = call(client, "a", 3, 10, "one\ntwo\x1b[2J\ud800end")
    said(task)
    with progress_bar(task, file=screen):
        pass
    assert screen.shows("3/10", "one two [2J end")
    assert "\x1b[2J" not in screen.getvalue()


def test_the_bar_ends_with_its_block_whatever_ends_that(client: Client, gates: Any, bars: set[int]) -> None:
    screen = Screen()
    task = call(client, "a", 3, 10)
    with pytest.raises(RuntimeError, match="enough"), progress_bar(task, file=screen):
        assert len(bars) == 1
        raise RuntimeError("enough")
    assert not bars


def test_coroutines_have_bars_too(gates: Any) -> None:
    inner = AppServer("memory", "memory://bars-of-coroutines", "async")

    @inner.function(name="steps")
    async def steps(count: int) -> int:
        for number in range(count):
            current_call().progress(number + 1, count)
        return count

    screen, drawn = Screen(), []

    async def scenario() -> None:
        serving = asyncio.create_task(inner.serve())
        await inner.ready
        async with prpc.AsyncClient("memory", "memory://bars-of-coroutines") as client:
            with progress_bar([client.call("steps", 5), client.call("steps", 7)], file=screen) as tasks:
                drawn.extend([await task for task in tasks])
        await inner.stop()
        await serving

    asyncio.run(scenario())
    assert drawn == [5, 7]
    assert screen.shows("steps: 100%", "5/5")
    assert screen.shows("steps: 100%", "7/7")


def test_what_is_no_call_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match=r"calls are expected .* not int"), progress_bar([3]):  # type: ignore[list-item]
        pass


def test_without_tqdm_it_says_what_to_install(client: Client, gates: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    task = call(client, "a", 1)
    with (
        pytest.raises(ModuleNotFoundError, match=r"progress_bar\(\) needs tqdm: pip install 'prpc\[progress\]'"),
        progress_bar(task),
    ):
        pass


def gathered(tasks: list[AwaitableTask[str]]) -> list[str]:
    return gather(*tasks, progress=True).result(PATIENCE)


def each(tasks: list[AwaitableTask[str]]) -> list[str]:
    return sorted(task.get_result() for task in as_completed(tasks, timeout=PATIENCE, progress=True))


@pytest.mark.parametrize("wait", [gathered, each])
def test_calls_that_say_how_far_they_are_have_bars_below_the_count(
    client: Client,
    gates: Any,
    bars: set[int],
    wait: Callable[[list[AwaitableTask[str]]], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    names = [f"{number:02}" for number in range(13)]
    tasks = [call(client, name, number, 100, f"call {name}") for number, name in enumerate(names)]
    quiet = call(client, "quiet", name="silent")
    for task in tasks:
        said(task)
    opened: list[int] = []

    def go_on() -> None:
        _once(lambda: screen.shows("call 09"))
        tasks[0].on_progress(lambda _: opened.append(len(bars)))  # told behind the bars, which asked first
        _once(lambda: bool(opened))
        for gate in gates.values():
            gate.set()

    going_on = threading.Thread(target=go_on, daemon=True)
    going_on.start()
    assert wait([*tasks, quiet]) == [*names, "quiet"]
    going_on.join()
    assert opened == [11]
    assert [name for name in names if screen.shows(f"call {name}")] == names[:10]
    assert screen.shows("14/14")
    assert not screen.shows("silent")
    assert not bars


def test_a_call_that_ends_makes_room_for_the_bar_of_another(
    client: Client, gates: Any, bars: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    tasks = [call(client, f"{number:02}", number, 100, f"call {number:02}") for number in range(11)]
    for task in tasks:
        said(task)

    def go_on() -> None:
        _once(lambda: screen.shows("call 09"))
        gates["03"].set()
        _once(lambda: len(bars) == 10)
        last = tasks[10]
        last.call.home.post(last.call.note, Progress(11, 100, "call 10"))
        _once(lambda: screen.shows("call 10"))
        for gate in gates.values():
            gate.set()

    going_on = threading.Thread(target=go_on, daemon=True)
    going_on.start()
    assert len(gather(*tasks, progress=True).result(PATIENCE)) == 11
    going_on.join()
    assert not bars


def _once(happened: Callable[[], bool]) -> None:
    changed = threading.Event()
    for _ in range(4000):
        if happened():
            return
        changed.wait(0.005)
    raise AssertionError("it never happened")
