"""Registering functions, and binding arguments to them."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NotRequired, TypedDict, Unpack

import pytest

from prpc.exceptions import BadArgumentsError, RegistrationError
from prpc.server.binding import Binder
from prpc.server.registry import Registry, public_methods
from prpc.workers.base import WorkerKind


@dataclass
class Point:
    x: int
    y: int = 0


class Extras(TypedDict):
    color: str
    size: NotRequired[int]


def plain(a: int, b: int = 2) -> int:
    return a + b


async def coroutine(a: int) -> int:
    return a


def nothing() -> None: ...


async def nothing_async() -> None: ...


def unannotated():  # type: ignore[no-untyped-def]
    ...


def perhaps_nothing() -> int | None: ...


def anything() -> Any: ...


def with_result(annotation: Any) -> Callable[..., Any]:
    """A function whose annotation of the result is this."""

    def function() -> None: ...

    function.__annotations__["return"] = annotation
    return function


NOTHING_LATER, UNKNOWN_RESULT = with_result("None"), with_result("NotYetDefined")


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Adder:
    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, x: int) -> int:
        return self.base + x

    def add(self, x: int) -> int:
        return self.base + x

    async def slowly(self) -> None: ...


class AsyncCallable:
    async def __call__(self) -> None: ...


class TestRegistering:
    def test_keeps_order_and_facts(self) -> None:
        registry = Registry()
        registry.add(plain, "process", timeout=timedelta(seconds=3), idempotent=True)
        registry.add(coroutine, "async", name="math.same")
        assert [f.name for f in registry] == ["plain", "math.same"]
        assert len(registry) == 2
        first = registry.get("plain")
        assert first is not None
        assert (first.kind, first.timeout, first.idempotent) == (WorkerKind.PROCESS, 3.0, True)
        assert registry.get("nope") is None

    @pytest.mark.parametrize(
        ("function", "worker", "name"),
        [
            (functools.partial(plain, 1), "thread", "plain"),
            (functools.partial(functools.partial(coroutine), 1), "async", "coroutine"),
            (Adder(1).add, "thread", "add"),
            (Adder(1).slowly, "async", "slowly"),
            (math.sqrt, "thread", "sqrt"),
            (len, "process", "len"),
        ],
    )
    def test_takes_what_has_a_name(self, function: Callable[..., Any], worker: str, name: str) -> None:
        assert Registry().add(function, worker).name == name

    def test_takes_what_is_given_a_name(self) -> None:
        registry = Registry()
        registry.add(Adder(1), "thread", name="adder")
        registry.add(AsyncCallable(), "async", name="background")
        registry.add(lambda: 1, "thread", name="one")
        assert [f.name for f in registry] == ["adder", "background", "one"]

    @pytest.mark.parametrize(
        ("function", "worker", "options", "text"),
        [
            (coroutine, "thread", {}, "'coroutine' is a coroutine function"),
            (coroutine, "process", {}, "'coroutine' is a coroutine function"),
            (AsyncCallable(), "thread", {"name": "f"}, "'f' is a coroutine function"),
            (functools.partial(coroutine, 1), "thread", {}, "'coroutine' is a coroutine function"),
            (plain, "async", {}, "'plain' is a plain function"),
            (plain, "fiber", {}, "'plain': worker type 'fiber' cannot be used; allowed is one of 'thread', 'process', 'async'"),
            (generator, "process", {}, "'generator' is a generator: process workers do not stream"),
            (functools.partial(generator), "process", {}, "'generator' is a generator: process workers do not stream"),
            (async_generator, "process", {}, "'async_generator' is a generator: process workers do not stream"),
            (async_generator, "thread", {}, "'async_generator' is a coroutine function"),
            (generator, "async", {}, "'generator' is a plain function"),
            (Adder, "thread", {}, "'Adder' is a class"),
            (5, "thread", {}, "5 is not a function"),
            (Adder(1), "thread", {}, "has no name"),
            (lambda: 1, "thread", {}, "has no name"),
            (lambda: 1, "process", {"name": "one"}, "'one' is defined inside another one"),
            (plain, "thread", {"name": "two words"}, "'two words' cannot be used"),
            (plain, "thread", {"name": "a..b"}, "'a..b' cannot be used"),
            (plain, "thread", {"name": ""}, "'' cannot be used"),
            (plain, "thread", {"name": 5}, "5 cannot be used"),
            (plain, "thread", {"name": "ping"}, "'ping' is taken by a built-in"),
            (plain, "thread", {"name": "get_function_server"}, "'get_function_server' is taken"),
            (plain, "thread", {"timeout": 0}, "timeout 0 cannot be used"),
            (plain, "thread", {"timeout": "1"}, "timeout '1' cannot be used"),
            (plain, "thread", {"timeout": True}, "timeout True cannot be used"),
            (plain, "thread", {"timeout": timedelta(seconds=-1)}, "cannot be used"),
        ],
    )
    def test_refuses_with_a_reason(self, function: Any, worker: str, options: dict[str, Any], text: str) -> None:
        with pytest.raises(RegistrationError) as caught:
            Registry().add(function, worker, **options)
        assert text in str(caught.value)
        assert caught.value.function is not None

    @pytest.mark.parametrize(
        ("function", "worker"),
        [
            (nothing, "thread"),
            (unannotated, "thread"),
            (nothing_async, "async"),
            (functools.partial(nothing), "thread"),
            (Adder(1).slowly, "async"),
            (AsyncCallable(), "async"),
            (NOTHING_LATER, "thread"),
            (print, "thread"),
            (max, "thread"),
        ],
    )
    def test_broadcast_functions_give_nothing(self, function: Callable[..., Any], worker: str) -> None:
        registry = Registry()
        registered = registry.add(function, worker, name="f", broadcast=True, max_concurrency=3, idempotent=True, timeout=2)
        assert registered.broadcast and registered.idempotent
        assert (registered.events_at_once, registered.max_concurrency, registered.timeout) == (3, None, 2.0)
        other = registry.add(function, worker, name="g", max_concurrency=3)
        assert (other.broadcast, other.events_at_once, other.max_concurrency) == (False, None, 3)

    @pytest.mark.parametrize(
        ("function", "worker", "text"),
        [
            (plain, "thread", "'f' is broadcast: it runs in every server, and nobody gets its result"),
            (coroutine, "async", "nobody gets its result"),
            (perhaps_nothing, "thread", "nobody gets its result"),
            (anything, "thread", "nobody gets its result"),
            (UNKNOWN_RESULT, "thread", "nobody gets its result"),
            (Adder(1), "thread", "nobody gets its result"),
            (generator, "thread", "nobody gets its items"),
            (async_generator, "async", "nobody gets its items"),
            (nothing, "async", "'f' is a plain function"),
        ],
    )
    def test_broadcast_functions_that_give_something_are_refused(self, function: Any, worker: str, text: str) -> None:
        with pytest.raises(RegistrationError) as caught:
            Registry().add(function, worker, name="f", broadcast=True)
        assert text in str(caught.value)
        assert caught.value.function == "f"

    def test_refuses_a_name_twice(self) -> None:
        registry = Registry()
        registry.add(plain, "thread")
        with pytest.raises(RegistrationError, match="'plain' is registered twice") as caught:
            registry.add(coroutine, "async", name="plain")
        assert caught.value.function == "plain"

    def test_not_found_names_the_nearest(self) -> None:
        registry = Registry()
        registry.add(plain, "thread", name="hello_world")
        registry.add(plain, "thread", name="Summ")
        error = registry.not_found("summ")
        assert "func name 'summ' not found in server" in str(error) and "did you mean 'Summ'?" in str(error)
        assert (error.function, error.nearest) == ("summ", ["Summ"])

    def test_not_found_lists_what_there_is(self) -> None:
        registry = Registry()
        assert "it has 'ping', 'get_function_server'" in str(registry.not_found("zzz"))
        registry.add(plain, "thread")
        assert "it has 'plain'" in str(registry.not_found("q" * 1_000_000))


class Base:
    flag = 1
    helper: Any = staticmethod(plain)

    def first(self) -> str:
        return "base"

    def hidden_below(self) -> str:
        return ""


class Service(Base):
    class Nested:
        pass

    hidden_below = None  # type: ignore[assignment]

    def first(self) -> str:
        return "service"

    async def second(self) -> None: ...

    @property
    def size(self) -> int:
        raise AssertionError("a property must not be read")

    @classmethod
    def make(cls) -> str:
        return cls.__name__

    @staticmethod
    def free() -> int:
        return 5

    def _private(self) -> None: ...


class TestServices:
    def test_public_methods(self) -> None:
        methods = dict(public_methods(Service()))
        assert list(methods) == ["helper", "first", "second", "make", "free"]
        assert (methods["first"](), methods["make"](), methods["free"]()) == ("service", "Service", 5)

    @pytest.mark.parametrize("thing", [Service, math])
    def test_takes_an_object(self, thing: Any) -> None:
        with pytest.raises(RegistrationError, match="takes an object"):
            list(public_methods(thing))


def everything(a: int, /, b: Point, *args: int, c: float, d: str = "d", **kwargs: Point) -> None: ...
def by_place(a: int, b: Point | None = None, /) -> None: ...
def by_name(*, a: int = 1) -> None: ...
def lonely(a: int) -> None: ...
def nothing() -> None: ...
def unpacked(a: int, **kwargs: Unpack[Extras]) -> None: ...
def implicit_none(a: int = None, b: Arbitrary = None) -> None: ...  # type: ignore[assignment, name-defined]  # noqa: F821, RUF013
def place_and_more(a: int, /, **kwargs: Any) -> None: ...


def bind(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    bound_args, bound_kwargs = Binder(function.__name__, function).bind(args, kwargs)
    return list(bound_args), dict(bound_kwargs)


class TestBinding:
    def test_every_kind_of_parameter_is_converted(self) -> None:
        args, kwargs = bind(everything, "1", {"x": 2}, "3", c=4, e={"x": 5})
        assert args == [1, Point(2), 3]
        assert kwargs == {"c": 4.0, "e": Point(5)}
        assert bind(everything, 1, b={"x": 1}, c=0)[1] == {"b": Point(1), "c": 0.0}

    def test_defaults_are_left_to_the_function(self) -> None:
        assert bind(by_place, 1) == ([1], {})
        assert bind(by_name) == ([], {})

    def test_none_is_allowed_where_it_is_the_default(self) -> None:
        assert bind(implicit_none, None, 1) == ([None, 1], {})
        assert bind(implicit_none, "1") == ([1], {})

    def test_a_name_that_is_taken_by_place_may_be_used_again_among_kwargs(self) -> None:
        assert bind(place_and_more, 1, a=2) == ([1], {"a": 2})

    def test_unpacked_typed_dicts(self) -> None:
        assert bind(unpacked, 1, color="red", size="5") == ([1], {"color": "red", "size": 5})

    def test_a_function_without_signature_takes_everything(self) -> None:
        assert bind(dict.fromkeys, 1, 2) == ([1, 2], {})
        assert bind(max, 1, 2, key=3) == ([1, 2], {"key": 3})

    @pytest.mark.parametrize(
        ("function", "args", "kwargs", "text", "parameter"),
        [
            (plain, (), {}, "plain() misses the argument 'a'", "a"),
            (everything, (), {}, "everything() misses the arguments 'a', 'b', 'c'", "a"),
            (everything, (), {"a": 1, "b": {"x": 1}, "c": 1}, "argument 'a' must be Point", "a"),
            (plain, ("x",), {}, "plain(): argument 'a' must be int, not 'x'", "a"),
            (plain, (1, 2, 3), {}, "plain() takes at most 2 arguments by place, got 3", None),
            (nothing, (1,), {}, "nothing() takes no arguments by place, got 1", None),
            (plain, (1,), {"a": 1}, "plain() got the argument 'a' twice", "a"),
            (plain, (1,), {"bb": 1}, "plain() has no argument 'bb'; did you mean 'b'?", "bb"),
            (plain, (1,), {"zzz": 1}, "plain() has no argument 'zzz'; it has 'a', 'b'", "zzz"),
            (nothing, (), {"zzz": 1}, "nothing() has no argument 'zzz'; it takes none by name", "zzz"),
            (by_place, (), {"a": 1}, "by_place() takes the argument 'a' by place only", "a"),
            (lonely, (1, 2), {}, "lonely() takes at most one argument by place, got 2", None),
            (by_name, (), {"a": "x"}, "by_name(): argument 'a' must be int", "a"),
            (everything, (1, {"x": 1}, "x"), {"c": 1}, "argument '*args[0]' must be int", "*args[0]"),
            (unpacked, (1,), {}, "unpacked() misses the argument 'color'", "color"),
            (unpacked, (1,), {"color": "red", "colour": 1}, "has no argument 'colour'; did you mean 'color'?", "colour"),
            (unpacked, (1,), {"color": 5}, "argument 'color' must be str", "color"),
        ],
    )
    def test_what_does_not_fit_is_explained(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], text: str, parameter: str | None
    ) -> None:
        with pytest.raises(BadArgumentsError) as caught:
            bind(function, *args, **kwargs)
        assert text in str(caught.value)
        assert caught.value.function == function.__name__
        assert caught.value.parameter == parameter

    @pytest.mark.parametrize("function", [plain, unpacked])
    def test_an_endless_name_is_cut_before_it_is_looked_at(self, function: Callable[..., Any]) -> None:
        """Its likeness to those that are there would be searched for in all of it, in the server's loop."""
        with pytest.raises(BadArgumentsError, match="has no argument") as caught:
            bind(function, 1, **{"n" * 10_000_000: 1})
        assert len(str(caught.value)) < 500
        assert caught.value.parameter == "n" * 200

    def test_names_must_be_texts(self) -> None:
        with pytest.raises(BadArgumentsError, match="no text"):
            Binder("plain", plain).bind((), {5: 1})  # type: ignore[dict-item]

    def test_annotations_may_name_what_is_defined_later(self) -> None:
        registry = Registry()
        namespace: dict[str, Any] = {"dataclass": dataclass}
        exec("def f(p: 'Later'): ...", namespace)
        registered = registry.add(namespace["f"], "thread")
        exec("@dataclass\nclass Later:\n    x: int", namespace)
        args, _ = registered.binder.bind([{"x": 1}], {})
        assert args == [namespace["Later"](1)]
        assert registered.binder is registered.binder
