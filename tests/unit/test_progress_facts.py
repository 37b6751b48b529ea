"""The value Progress, what the current call does with it, and its mail."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import fractions
import json
import pickle
from typing import Any
from uuid import UUID

import pytest

from prpc.call_context import CurrentCall
from prpc.deadline import Deadline
from prpc.exceptions import DecodeError
from prpc.progress import Progress
from prpc.protocol.mail import MAIL_START, kind_of, read_progress, write_progress

ID = UUID("6f1c0c1e-8d7a-4d3c-9a53-0f6f2f8e2b11")


class Step(enum.IntEnum):
    THIRD = 3


class Text(str):
    pass


def test_a_progress_is_a_value() -> None:
    progress = Progress(3, 10, "third")
    assert progress == Progress(done=3, total=10, message="third")
    assert Progress(0) == Progress(0.0, None, None)
    assert pickle.loads(pickle.dumps(progress)) == progress
    with pytest.raises(dataclasses.FrozenInstanceError):
        progress.done = 4  # type: ignore[misc]


@pytest.mark.parametrize(("given", "plain"), [(Step.THIRD, 3), (fractions.Fraction(1, 2), 0.5), (10**300, 10**300), (2.5, 2.5)])
def test_numbers_become_plain_ones(given: Any, plain: float) -> None:
    for progress in (Progress(given), Progress(0, given)):
        number = progress.total if progress.done == 0 else progress.done
        assert number == plain
        assert type(number) is type(plain)


@pytest.mark.parametrize(
    "number", [-1, -0.001, float("nan"), float("inf"), -float("inf"), 10**400, pytest.param(10**5000, id="5000 digits")]
)
@pytest.mark.parametrize("name", ["done", "total"])
def test_numbers_that_say_nothing_are_refused(name: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}=.* cannot be used: allowed is a finite number from 0 up$") as caught:
        Progress(**{"done": 0, name: number})
    assert len(str(caught.value)) < 150


def test_a_fraction_beyond_every_float_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Progress(fractions.Fraction(10**400))


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("number", ["3", True, b"3", [], 3j, decimal.Decimal(3), Unshowable()])
@pytest.mark.parametrize("name", ["done", "total"])
def test_what_is_no_number_is_refused(name: str, number: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}=.* cannot be used: allowed is a number$"):
        Progress(**{"done": 0, name: number})


def test_the_message_is_a_text_of_bounded_length() -> None:
    with pytest.raises(TypeError, match="message=7 cannot be used: allowed is a text, or None"):
        Progress(0, None, 7)  # type: ignore[arg-type]
    assert Progress(0, None, "x" * 501).message == "x" * 500
    assert type(Progress(0, None, Text("a")).message) is str
    with pytest.raises(TypeError, match="done=None"):
        Progress(None)  # type: ignore[arg-type]


class Sink:
    def __init__(self) -> None:
        self.said: list[tuple[str, Progress]] = []

    def report(self, message_id: str, progress: Progress) -> None:
        self.said.append((message_id, progress))


def test_the_current_call_passes_it_on_until_it_is_cancelled() -> None:
    sink = Sink()
    call = CurrentCall("id-1", "f", {}, Deadline(None), _sink=sink)
    call.progress(1)
    call.progress(2, 3, "two")
    call.progress(done=3.5, total=4, message=None)
    assert sink.said == [("id-1", Progress(1)), ("id-1", Progress(2, 3, "two")), ("id-1", Progress(3.5, 4))]
    call.mark_cancelled()
    call.progress(4)
    assert len(sink.said) == 3
    assert "sink" not in repr(call)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_wrong_number_is_an_error_at_its_call_whoever_listens(cancelled: bool) -> None:
    call = CurrentCall("id-1", "f", {}, Deadline(None))
    call.progress(1, 2, "nobody listens")
    if cancelled:
        call.mark_cancelled()
    with pytest.raises(ValueError, match="done=-1"):
        call.progress(-1)
    with pytest.raises(TypeError, match="total='ten'"):
        call.progress(1, "ten")  # type: ignore[arg-type]


PROGRESSES = [
    Progress(0),
    Progress(3, 10),
    Progress(0.5, None, "half"),
    Progress(10**300, 1e-300, "\u20ac\n\x00\U0001f600" * 125),
]


@pytest.mark.parametrize("progress", PROGRESSES)
def test_mail_is_read_as_it_was_written(progress: Progress) -> None:
    body = write_progress(ID, progress)
    assert body.startswith(MAIL_START)
    assert kind_of(body) == "progress"
    assert body.isascii()
    assert read_progress(body) == (ID, progress)


def test_the_longest_mail_is_read() -> None:
    longest = Progress(10**308, 10**308, "\U0001f600" * 500)
    assert read_progress(write_progress(ID, longest)) == (ID, longest)


def test_mail_leaves_out_what_is_not_said() -> None:
    assert json.loads(write_progress(ID, Progress(3))) == {"prpc_mail": "progress", "id": str(ID), "done": 3}
    said = json.loads(write_progress(ID, Progress(3, 10, "m")))
    assert said == {"prpc_mail": "progress", "id": str(ID), "done": 3, "total": 10, "message": "m"}


def test_mail_of_others_may_be_spaced_otherwise_and_say_more() -> None:
    body = b'{"prpc_mail":"progress","more":[1],"total":null,"done":1.5,"id":"%b"}' % str(ID).encode()
    assert kind_of(body) == "progress"
    assert read_progress(body) == (ID, Progress(1.5))


HOSTILE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b"\xff\xfe",
    b"[" * 5000,
    b'{"prpc_mail": "progress"}',
    b'{"id": 3, "done": 1}',
    b'{"id": "no id", "done": 1}',
    b'{"id": [], "done": 1}',
    b'{"id": "%b"}',
    b'{"id": "%b", "done": null}',
    b'{"id": "%b", "done": "1"}',
    b'{"id": "%b", "done": true}',
    b'{"id": "%b", "done": -1}',
    b'{"id": "%b", "done": NaN}',
    b'{"id": "%b", "done": Infinity}',
    b'{"id": "%b", "done": 1e999}',
    b'{"id": "%b", "done": 1' + b"0" * 400 + b"}",
    b'{"id": "%b", "done": 1' + b"0" * 6000 + b"}",
    b'{"id": "%b", "done": 1, "total": []}',
    b'{"id": "%b", "done": 1, "total": -3}',
    b'{"id": "%b", "done": 1, "message": 3}',
    b'{"id": "%b", "done": 1, "message": {}}',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_mail_is_a_decode_error(text: bytes) -> None:
    with pytest.raises(DecodeError, match="cannot be read") as caught:
        read_progress(text.replace(b"%b", str(ID).encode()))
    assert caught.value.reason == "form"


def test_mail_that_is_too_large_is_not_looked_into() -> None:
    with pytest.raises(DecodeError, match="8193 bytes; 8192 are allowed") as caught:
        read_progress(b" " * 8193)
    assert caught.value.reason == "size"


def test_a_long_message_of_others_is_cut() -> None:
    body = b'{"prpc_mail": "progress", "id": "%b", "done": 1, "message": "%b"}' % (str(ID).encode(), b"x" * 7000)
    assert read_progress(body)[1].message == "x" * 500


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"prpc_mail": "items", rubbish', "items"),
        (b'{"prpc_mail" : "a_word"}', "a_word"),
        (b'{"prpc_mail": ""}', None),
        (b'{"prpc_mail": "' + b"x" * 21 + b'"}', None),
        (b'{"prpc_mail": 3}', None),
        (b'{"prpc_mail": "It\xff"}', None),
        (b' {"prpc_mail": "items"}', None),
        (b'{"py/object": "prpc.prpcmessage.PRPCMessage"}', None),
        (b"", None),
    ],
)
def test_the_kind_of_mail_stands_at_its_start(body: bytes, kind: str | None) -> None:
    assert kind_of(body) == kind
