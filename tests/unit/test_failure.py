"""Exceptions as plain data and back."""

from __future__ import annotations

import asyncio
import builtins
import copy
import json
import pickle
import traceback
from typing import Any

import pytest

from prpc import exceptions
from prpc.exceptions import (
    BadArgumentsError,
    ClientTimeOutError,
    FunctionNotFoundError,
    PRPCError,
    RemoteError,
    WorkerLostError,
)
from prpc.failure import MAX_CHAIN, MAX_TEXT, Failure, describe, failure_of, restore


class CardRefused(ValueError):
    """An exception of some user's."""


class Own(Exception):
    pass


class Stop(StopIteration):
    pass


class Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit("never print me")


class Numeric(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


def raised(exc: BaseException, cause: BaseException | None = None) -> BaseException:
    """The exception with a traceback."""
    try:
        if cause is None:
            raise exc
        raise exc from cause
    except BaseException as caught:
        return caught


def over(exc: BaseException) -> BaseException:
    """The exception as its caller gets it."""
    return restore(describe(raised(exc)))


def builtin_exceptions() -> list[Any]:
    found: set[Any] = {kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    return sorted(found - {StopIteration, StopAsyncIteration, ExceptionGroup}, key=lambda kind: kind.__name__)


ARGUMENTS: dict[type[BaseException], tuple[Any, ...]] = {
    UnicodeDecodeError: ("utf-8", b"\xff", 0, 1, "invalid start byte"),
    UnicodeEncodeError: ("ascii", "é", 0, 1, "ordinal not in range"),
    UnicodeTranslateError: ("é", 0, 1, "no"),
}


@pytest.mark.parametrize("kind", builtin_exceptions())
def test_every_built_in_is_caught_under_its_own_class_and_as_remote_error(kind: type[Exception]) -> None:
    original = kind(*ARGUMENTS.get(kind, ("missing",)))
    arrived = over(original)
    assert isinstance(arrived, kind) and isinstance(arrived, RemoteError) and isinstance(arrived, PRPCError)
    assert str(arrived) == str(original) and arrived.args == original.args
    assert arrived.type_name == f"builtins.{kind.__name__}"
    assert arrived.traceback is not None and "Traceback (most recent call last)" in arrived.traceback
    assert kind.__name__ in repr(arrived)
    assert type(over(kind(*original.args))) is type(arrived)


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration, BaseException, Stop]
)
def test_what_steers_a_program_arrives_as_a_remote_error_only(kind: type[BaseException]) -> None:
    arrived = over(kind("why"))
    assert isinstance(arrived, RemoteError) and not isinstance(
        arrived, (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration)
    )
    assert type(arrived).__name__ == "RemoteException" and str(arrived) == "why"
    assert arrived.type_name is not None and arrived.type_name.endswith(f".{kind.__name__}")


def test_a_cancellation_inside_a_function_is_no_cancellation_of_the_caller() -> None:
    arrived = over(asyncio.CancelledError())
    assert isinstance(arrived, RemoteError) and not isinstance(arrived, asyncio.CancelledError)


def test_the_text_of_a_key_error_is_the_original_one() -> None:
    arrived = over(KeyError("missing"))
    assert str(arrived) == "'missing'" and arrived.args == ("missing",)


def test_a_class_of_the_user_is_its_nearest_built_in() -> None:
    arrived = over(CardRefused("no money"))
    assert isinstance(arrived, ValueError) and isinstance(arrived, RemoteError) and not isinstance(arrived, CardRefused)
    assert arrived.type_name == f"{__name__}.CardRefused" and str(arrived) == "no money"
    assert describe(CardRefused("x")).bases == ("builtins.ValueError",)
    assert type(over(Own("x"))).__name__ == "RemoteException"
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert isinstance(over(caught.value), ValueError)


def test_errors_of_the_system_keep_their_facts() -> None:
    arrived = over(FileNotFoundError(2, "No such file or directory", "/a", None, "/b"))
    assert isinstance(arrived, FileNotFoundError)
    assert (arrived.errno, arrived.strerror, arrived.filename, arrived.filename2) == (2, "No such file or directory", "/a", "/b")
    assert str(arrived) == "[Errno 2] No such file or directory: '/a' -> '/b'"
    with pytest.raises(OSError) as caught:
        open("/nonexistent/file")
    assert isinstance(over(caught.value), FileNotFoundError)


def test_attributes_beside_the_arguments_arrive() -> None:
    error: Any = over(ImportError("no", name="a.b", path="/x"))
    assert (error.name, error.path) == ("a.b", "/x")
    with pytest.raises(NameError) as caught:
        undefined  # type: ignore[name-defined]  # noqa: F821
    arrived: Any = over(caught.value)
    assert isinstance(arrived, NameError) and arrived.name == "undefined"
    with pytest.raises(SyntaxError) as syntax:
        compile("a b", "file.py", "exec")
    broken: Any = over(syntax.value)
    assert isinstance(broken, SyntaxError) and (broken.lineno, broken.filename) == (1, "file.py")
    decode: Any = over(raised(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")))
    assert (decode.encoding, decode.object, decode.start, decode.end, decode.reason) == ("utf-8", b"\xff", 0, 1, "bad")
    assert over(OSError()).args == ("",)


def test_causes_and_contexts_arrive() -> None:
    arrived = restore(describe(raised(ValueError("outer"), KeyError("inner"))))
    assert isinstance(arrived.__cause__, KeyError) and isinstance(arrived.__cause__, RemoteError)
    assert str(arrived.__cause__) == "'inner'" and arrived.__suppress_context__

    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904
    except ValueError as exc:
        context = restore(describe(exc))
    assert context.__cause__ is None and isinstance(context.__context__, KeyError)

    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second") from None
    except ValueError as exc:
        neither = restore(describe(exc))
    assert neither.__cause__ is None and neither.__context__ is None


def test_notes_arrive_and_the_servers_traceback_is_printed() -> None:
    original = KeyError("k")
    original.add_note("first")
    original.add_note("second")
    arrived = over(original)
    assert arrived.__notes__[:2] == ["first", "second"]
    printed = "".join(traceback.format_exception(arrived))
    assert "first" in printed and "Traceback on the server:" in printed and "raise exc" in printed
    assert not hasattr(restore(Failure("builtins.KeyError", "'k'")), "__notes__")


def test_the_traceback_holds_the_causes_too() -> None:
    failure = describe(raised(ValueError("outer"), raised(KeyError("inner"))))
    assert "direct cause of the following" in failure.traceback and "KeyError: 'inner'" in failure.traceback
    assert failure.cause is not None and "KeyError" in failure.cause.traceback and "ValueError" not in failure.cause.traceback


def test_groups_arrive_as_groups() -> None:
    group = ExceptionGroup("many", [ValueError("a"), ExceptionGroup("inner", [KeyError("b"), CardRefused("c")])])
    arrived = over(group)
    assert isinstance(arrived, ExceptionGroup) and isinstance(arrived, RemoteError)
    assert str(arrived) == str(group) and arrived.message == "many"
    first, second = arrived.exceptions
    assert isinstance(first, ValueError) and isinstance(first, RemoteError) and isinstance(second, ExceptionGroup)
    caught: list[BaseException] = []
    try:
        raise arrived
    except* KeyError as part:
        caught += part.exceptions
    except* ValueError as part:
        caught += part.exceptions
    assert [type(part).__name__ for part in caught] == ["ExceptionGroup", "RemoteValueError", "ExceptionGroup"]


def test_a_group_of_exits_is_a_group_of_remote_errors() -> None:
    arrived = over(BaseExceptionGroup("exits", [SystemExit(1), ValueError("x")]))
    assert isinstance(arrived, BaseExceptionGroup) and isinstance(arrived, RemoteError)
    assert [type(member).__name__ for member in arrived.exceptions] == ["RemoteException", "RemoteValueError"]


def test_a_group_without_members_is_no_group() -> None:
    arrived = restore(Failure("builtins.ExceptionGroup", "many", facts={"message": "many"}))
    assert type(arrived).__name__ == "RemoteException" and str(arrived) == "many"


@pytest.mark.parametrize(
    "exc",
    [
        KeyError("k"),
        FileNotFoundError(2, "no", "f"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        CardRefused("x"),
        SystemExit(3),
        ExceptionGroup("g", [ValueError("a")]),
        WorkerLostError("lost", function="f", exit_code=-9),
    ],
)
def test_a_restored_exception_can_be_pickled_and_copied(exc: BaseException) -> None:
    arrived = restore(describe(raised(exc, KeyError("cause"))))
    for again in (pickle.loads(pickle.dumps(arrived)), copy.copy(arrived), copy.deepcopy(arrived)):
        assert type(again) is type(arrived) and str(again) == str(arrived) and again.args == arrived.args


@pytest.mark.parametrize("name", exceptions.__all__)
def test_prpc_errors_are_of_their_own_class_with_their_facts(name: str) -> None:
    kind = getattr(exceptions, name)
    error = kind("text", **{fact: f"the {fact}" for fact in kind.facts})
    arrived: Any = restore(failure_of(error))
    if kind is ClientTimeOutError:
        # It says that the caller's own patience ended, which another program cannot know.
        assert type(arrived) is not kind and isinstance(arrived, TimeoutError) and isinstance(arrived, RemoteError)
        return
    assert type(arrived) is kind and str(arrived) == "text"
    assert all(getattr(arrived, fact) == f"the {fact}" for fact in kind.facts)


def test_facts_are_plain_data_and_known_names_only() -> None:
    failure = failure_of(FunctionNotFoundError("no f", function="f", nearest=["g", "h"]))
    assert failure == Failure(
        "prpc.exceptions.FunctionNotFoundError",
        "no f",
        ("prpc.exceptions.CallError", "prpc.exceptions.PRPCError", "builtins.LookupError"),
        facts={"function": "f", "nearest": ["g", "h"]},
    )
    assert failure_of(BadArgumentsError("x", function=object(), parameter=[[[[[1]]]]])).facts == {}
    arrived: Any = restore(
        Failure("prpc.exceptions.FunctionNotFoundError", "x", facts={"function": "f", "__class__": "y", "args": [1]})
    )
    assert arrived.function == "f" and arrived.args == ("x",)


def test_a_prpc_error_of_the_user_is_a_remote_error() -> None:
    class Special(WorkerLostError):
        pass

    arrived = over(Special("x"))
    assert isinstance(arrived, RemoteError) and arrived.type_name is not None and arrived.type_name.endswith("Special")


def test_a_remote_error_that_goes_on_to_a_third_program_stays_what_it_was() -> None:
    first = over(CardRefused("no money"))
    second = over(first)
    assert type(second) is type(first) and str(second) == "no money"
    assert isinstance(second, RemoteError) and second.type_name == f"{__name__}.CardRefused"
    assert len(second.__notes__) == 1
    plain = over(RemoteError("text", type_name="a.B", traceback="T"))
    assert type(plain) is RemoteError and plain.type_name == "a.B"


def test_a_text_alone_is_a_remote_error() -> None:
    arrived = restore(Failure("prpc.exceptions.RemoteError", "bad value"))
    assert type(arrived) is RemoteError and str(arrived) == "bad value" and arrived.traceback is None


@pytest.mark.parametrize("exc", [Silent(), Numeric()])
def test_an_exception_that_cannot_be_printed_is_described(exc: Exception) -> None:
    failure = describe(raised(exc))
    assert failure.message == f"<{type(exc).__name__} that cannot be printed>"
    assert failure.type_name.endswith(type(exc).__name__)
    assert isinstance(restore(failure), RemoteError)


def test_an_exception_that_lies_about_everything_is_described() -> None:
    class Lying(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise KeyboardInterrupt

    failure = describe(Lying("x"))
    assert failure.notes == () and failure.cause is None and failure.facts == {}

    class Meta(type):
        @property
        def __module__(cls) -> str:  # type: ignore[override]
            raise ZeroDivisionError

    kind: Any = Meta("Odd", (Exception,), {})
    assert isinstance(restore(describe(kind("x"))), RemoteError)


def test_odd_attributes_are_left_out() -> None:
    exc = ValueError(object(), "x")
    exc.__notes__ = "no list"  # type: ignore[assignment]
    failure = describe(exc)
    assert failure.notes == () and failure.facts == {}
    exc = ValueError("x" * 100_000, 1)
    exc.__notes__ = ["good", 1, None]  # type: ignore[list-item]
    assert describe(exc).notes == ("good",) and describe(exc).facts == {}
    assert describe(ValueError(10**5000)).facts == {} and describe(ValueError(*range(100))).facts == {}
    assert describe(ValueError([1, (2.5, None, b"x", True)])).facts == {"args": [[1, (2.5, None, b"x", True)]]}


def test_huge_texts_are_cut_in_the_middle() -> None:
    exc = ValueError("a" * 10_000_000 + "z")
    exc.add_note("n" * 1_000_000)
    failure = describe(raised(exc))
    assert len(failure.message) <= MAX_TEXT and failure.message.startswith("aaa") and failure.message.endswith("az")
    assert "characters left out" in failure.message
    assert len(failure.traceback) <= MAX_TEXT and all(len(note) <= MAX_TEXT for note in failure.notes)


def size(failure: Failure) -> tuple[int, int]:
    """Exceptions and characters in a description."""
    parts = [size(member) for member in (*failure.members, *([failure.cause] if failure.cause else []))]
    own = len(failure.message) + len(failure.traceback) + sum(map(len, failure.notes))
    return 1 + sum(count for count, _ in parts), own + sum(length for _, length in parts)


def test_endless_chains_and_groups_are_cut() -> None:
    exc: BaseException = ValueError("x" * 10_000)
    for number in range(5_000):
        following = ValueError(str(number) + "y" * 10_000)
        following.__cause__ = exc
        exc = following
    count, characters = size(describe(raised(exc)))
    assert count <= MAX_CHAIN and characters < 1_000_000

    wide = ExceptionGroup("w", [ValueError("m" * 50_000) for _ in range(1_000)])
    wide = ExceptionGroup("ww", [wide, ExceptionGroup("v", [wide] * 60), *wide.exceptions])
    count, characters = size(describe(raised(wide)))
    assert count <= 200 and characters < 1_000_000
    assert isinstance(restore(describe(wide)), ExceptionGroup)


def test_cycles_are_cut() -> None:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    failure = describe(one)
    assert failure.cause is not None and failure.cause.message == "'two'" and failure.cause.cause is None
    loop = ValueError("self")
    loop.__context__ = raised(KeyError("k"), loop)
    assert describe(loop).cause is not None


def test_endless_recursion_is_described() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()
    arrived = over(caught.value)
    assert isinstance(arrived, RecursionError) and isinstance(arrived, RemoteError)


def test_many_base_classes_are_cut() -> None:
    kind: type[Exception] = KeyError
    for number in range(100):
        kind = type(f"E{number}", (kind,), {})
    failure = describe(kind("x"))
    assert len(failure.bases) <= 20 and failure.bases[-1] == "builtins.KeyError"
    assert isinstance(restore(failure), KeyError)


def test_a_long_chain_from_the_wire_is_cut() -> None:
    failure = Failure("builtins.KeyError", "end")
    for _ in range(500):
        failure = (
            Failure("builtins.ExceptionGroup", "x", cause=failure, members=(failure,))
            if _ < 3
            else Failure("a.B", "x", cause=failure)
        )
    depth, exc = 0, restore(failure)
    while exc is not None:
        depth, exc = depth + 1, exc.__context__
    assert depth <= MAX_CHAIN


def test_facts_from_the_wire_do_no_harm() -> None:
    for facts in (
        {"args": 1},
        {"args": "x"},
        {"args": {"a": 1}},
        {"args": [[1]] * 5},
        {"errno": [], "filename": 5},
        {"message": 1, "args": []},
    ):
        for name in ("OSError", "UnicodeDecodeError", "SyntaxError", "KeyError", "ImportError", "ExceptionGroup"):
            arrived = restore(Failure(f"builtins.{name}", "text", facts=facts, members=(Failure("a.B", "m"),)))
            assert isinstance(arrived, getattr(builtins, name)) and str(arrived) == "text"
            assert pickle.loads(pickle.dumps(arrived)).args == arrived.args
