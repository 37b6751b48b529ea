"""The server's log."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prpc.server.logs import JsonFormatter, TextFormatter, configure, log_call, logger


@contextmanager
def bare_logging() -> Iterator[io.StringIO]:
    """Logging as in a fresh process (pytest puts handlers of its own on the root logger), and a stream for `configure`."""
    prpc, root = logging.getLogger("prpc"), logging.getLogger()
    before = prpc.handlers, prpc.level, root.handlers
    prpc.handlers, root.handlers = [], []
    prpc.setLevel(logging.NOTSET)
    try:
        yield io.StringIO()
    finally:
        prpc.handlers, root.handlers = before[0], before[2]
        prpc.setLevel(before[1])


def write_line() -> None:
    log_call(message_id="8dcd", function="summ", worker="prpc-thread-1", queued=0.0015, running=0.25, outcome="ok")


def test_a_readable_line() -> None:
    with bare_logging() as stream:
        configure("text", "info", stream)
        write_line()
    assert stream.getvalue().endswith(" INFO prpc.server: 8dcd summ() ok: queued 1.5 ms, ran 250.0 ms, worker prpc-thread-1\n")


def test_a_json_line() -> None:
    with bare_logging() as stream:
        configure("json", "info", stream)
        write_line()
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in ("level", "logger", "message_id", "function", "worker", "outcome")} == {
        "level": "info",
        "logger": "prpc.server",
        "message_id": "8dcd",
        "function": "summ",
        "worker": "prpc-thread-1",
        "outcome": "ok",
    }
    assert (line["queued_ms"], line["running_ms"]) == (1.5, 250.0)
    assert line["time"].endswith("+00:00")


def test_json_holds_exceptions_and_foreign_fields() -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "text %s", ("here",), sys.exc_info())
    record.thing = {1}
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "text here"
    assert line["thing"] == "{1}"
    assert "ValueError: boom" in line["exception"]


def test_the_level_is_the_settings() -> None:
    with bare_logging() as stream:
        configure("text", "warning", stream)
        write_line()
        assert not logger.isEnabledFor(logging.INFO)
    assert stream.getvalue() == ""


def test_an_application_that_configured_logging_stays_in_charge() -> None:
    with bare_logging() as stream:
        logging.getLogger().addHandler(logging.StreamHandler(io.StringIO()))
        configure("text", "info", stream)
        assert logging.getLogger("prpc").handlers == []


def test_configured_once() -> None:
    with bare_logging() as stream:
        configure("text", "info", stream)
        configure("json", "debug", stream)
        (handler,) = logging.getLogger("prpc").handlers
        assert isinstance(handler.formatter, TextFormatter)
        assert logging.getLogger("prpc").level == logging.INFO
