"""Progress in a worker process: what goes through its pipe, and what its server makes of it."""

from __future__ import annotations

import contextvars
import pickle
import threading
from typing import Any

import pytest

from prpc.call_context import CurrentCall, bind_current_call
from prpc.deadline import Deadline
from prpc.progress import Progress
from prpc.workers.process_progress import PipeReports, pass_on
from prpc.workers.process_wire import Kind


class Pipe:
    """Stands for the channel to the server."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.news = threading.Semaphore(0)

    def send(self, kind: Kind, body: bytes) -> None:
        assert kind is Kind.PROGRESS
        self.sent.append(pickle.loads(body))
        self.news.release()


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


@pytest.fixture
def reports(pipe: Pipe) -> PipeReports:
    return PipeReports(pipe)  # type: ignore[arg-type]


def test_the_first_goes_at_once_and_the_last_at_the_end(pipe: Pipe, reports: PipeReports) -> None:
    reports.begin("one")
    reports.report("one", Progress(1, 3, "m"))
    assert pipe.sent == [("one", 1, 3, "m")]
    reports.report("one", Progress(2))
    reports.report("one", Progress(3))
    reports.end()
    assert pipe.sent[-1] == ("one", 3, None, None)
    reports.end()
    assert len(pipe.sent) <= 3


def test_what_comes_too_soon_is_sent_by_itself(pipe: Pipe, reports: PipeReports) -> None:
    reports.begin("one")
    for number in range(1000):
        reports.report("one", Progress(number))
    while pipe.sent[-1] != ("one", 999, None, None):
        assert pipe.news.acquire(timeout=20)
    count = len(pipe.sent)
    reports.end()
    assert len(pipe.sent) == count
    done = [sent[1] for sent in pipe.sent]
    assert done == sorted(set(done))


def test_each_call_begins_anew_and_nobody_speaks_for_another(pipe: Pipe, reports: PipeReports) -> None:
    reports.report("none", Progress(1))
    for name in ("one", "two", "three"):
        reports.begin(name)
        reports.report("none", Progress(7))
        reports.report(name, Progress(1))
        reports.end()
        reports.report(name, Progress(2))
    assert pipe.sent == [("one", 1, None, None), ("two", 1, None, None), ("three", 1, None, None)]


def test_a_forked_child_says_nothing(pipe: Pipe, reports: PipeReports) -> None:
    reports.begin("one")
    reports.close()
    reports.report("one", Progress(1))
    reports.end()
    assert pipe.sent == []


def test_a_system_without_threads_loses_no_last_word(pipe: Pipe, reports: PipeReports, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    reports.begin("one")
    reports.report("one", Progress(1))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        reports.report("one", Progress(2))
        reports.report("one", Progress(3))
    reports.end()
    assert pipe.sent[-1] == ("one", 3, None, None)


class Sink:
    def __init__(self) -> None:
        self.said: list[tuple[str, Progress]] = []

    def report(self, message_id: str, progress: Progress) -> None:
        self.said.append((message_id, progress))


class Execution:
    """Stands for a job in the hands of a worker."""

    def __init__(self, message_id: str, context: contextvars.Context) -> None:
        self.job = self
        self.message_id, self.context = message_id, context


def test_the_server_takes_it_for_the_call_that_runs_there() -> None:
    sink, context = Sink(), contextvars.Context()
    context.run(bind_current_call, CurrentCall("one", "f", {}, Deadline(None), _sink=sink))
    running: Any = Execution("one", context)
    pass_on(running, pickle.dumps(("one", 1, 2, "m")))
    pass_on(running, pickle.dumps(("another", 1, 2, "m")))
    pass_on(None, pickle.dumps(("one", 2, 2, "m")))
    without: Any = Execution("one", contextvars.Context())
    pass_on(without, pickle.dumps(("one", 2, 2, "m")))
    assert sink.said == [("one", Progress(1, 2, "m"))]
