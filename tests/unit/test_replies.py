"""Every call is left with a reply, whatever its outcome does while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from prpc.codec import Codec, Limits
from prpc.exceptions import EncodeError, FunctionNotFoundError
from prpc.failure import Failure, describe, failure_of, restore
from prpc.prpcmessage import PRPCMessage
from prpc.server.replies import ReplyWriter

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class SlyList(list[Any]):
    """Plain to look at; its own code runs when it is read."""

    error: type[BaseException]

    def __iter__(self) -> Any:
        raise self.error("in __iter__")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)


def nameless() -> Any:
    """Its class does not even tell its name: nothing for the eyes of who looks for tests in here."""

    class NamelessClass(type):
        def __getattribute__(cls, name: str) -> Any:
            raise SystemExit(5)

    class Nameless(metaclass=NamelessClass):
        pass

    return object.__new__(Nameless)


def sly(error: type[BaseException]) -> Any:
    value = SlyList([1])
    value.error = error
    return [value]


def written(value: Any, failure: Failure | None = None, name: str = "f", limits: Limits = Limits()) -> BaseException:
    """What a caller gets that named its mailbox."""
    codec = Codec(limits)
    message = PRPCMessage(name, (), {}, uuid4(), NOW)
    reply, _ = ReplyWriter(codec, None).write(message, value, failure, when=NOW, address="here", raw=False)
    raw, _ = ReplyWriter(codec, None).write(message, value, failure, when=NOW, address=None, raw=True)
    assert reply.wake is not None and raw.body
    for text in (reply.wake, reply.body):
        told = Codec().read_reply(text).failure
        assert told is not None
    return restore(told)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sly(KeyboardInterrupt),
        lambda: sly(asyncio.CancelledError),
        lambda: sly(GeneratorExit),
        lambda: sly(SystemExit),
        lambda: sly(Unprintable),
        nameless,
        lambda: {"a": [nameless()]},
    ],
)
def test_a_result_that_raises_while_it_is_written_is_a_failure(make: Callable[[], Any]) -> None:
    error = written(make())
    assert isinstance(error, EncodeError) and "the result of f() cannot be sent" in str(error)


def test_a_name_that_cannot_be_written_hides_no_failure() -> None:
    """The name of a call that came from elsewhere: Python's own JSON reads lone surrogates."""
    error = written(None, failure_of(FunctionNotFoundError("not here", function="x")), name="\ud800")
    assert isinstance(error, FunctionNotFoundError)


def test_a_failure_that_is_too_large_is_told_in_short() -> None:
    class Mine(KeyError):
        pass

    error = written(None, describe(Mine("m" * 60_000)), limits=Limits(max_bytes=2048))
    assert isinstance(error, KeyError) and str(error) == "'" + "m" * 199
    assert getattr(error, "type_name", "").endswith("Mine")
