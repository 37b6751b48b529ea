"""The server's log: one line per call, readable or as JSON.

Everything goes to the logger "prpc.server" with its facts as fields of the record. An application that embeds a server
configures logging itself; `configure` is for `app.start()` and the command line.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["JsonFormatter", "TextFormatter", "configure", "log_call", "logger"]

logger = logging.getLogger("prpc.server")

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_call(
    *, message_id: str, function: str, worker: str, queued: float, running: float, outcome: str, level: int = logging.INFO
) -> None:
    """One line about one call. `queued` and `running` are seconds, `outcome` is "ok" or the name of the error's class."""
    logger.log(
        level,
        "%s %s() %s: queued %.1f ms, ran %.1f ms, worker %s",
        message_id,
        function,
        outcome,
        queued * 1000,
        running * 1000,
        worker,
        extra={
            "message_id": message_id,
            "function": function,
            "worker": worker,
            "queued_ms": round(queued * 1000, 3),
            "running_ms": round(running * 1000, 3),
            "outcome": outcome,
        },
    )


def configure(log_format: str, log_level: str, stream: TextIO | None = None) -> None:
    """Send PRPC's log to `stream` (default: standard error) as "text" or "json".

    Handlers that the application has already put on the root logger or on "prpc" are left in charge.
    """
    prpc = logging.getLogger("prpc")
    if prpc.level == logging.NOTSET:
        prpc.setLevel(log_level.upper())
    if prpc.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    prpc.addHandler(handler)


class TextFormatter(logging.Formatter):
    """`2026-11-20 10:20:01.123 INFO prpc.server: ...`, local time."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _STANDARD_FIELDS)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
