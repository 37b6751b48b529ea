"""Descriptions of functions: plain data, complete, and never an error."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import sys
import typing
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from http import HTTPStatus
from types import ModuleType
from typing import Any

import pytest
import typing_extensions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prpc.stubs.codegen import generate
from prpc.stubs.signature import describe_function, function_schema, server_schema


def describe(function: Any, name: str = "f", **more: Any) -> dict[str, Any]:
    facts = {"worker": "thread", "idempotent": False, "timeout": None, **more}
    description = describe_function(function, name=name, **facts)
    assert json.loads(json.dumps(description, allow_nan=False)) == description
    assert generate([description], queue="q")
    return description


def annotation_of(hint: Any) -> str | None:
    def function(a: Any) -> None: ...

    function.__annotations__["a"] = hint
    found: str | None = describe(function)["parameters"][0].get("annotation")
    return found


def default_of(value: Any) -> str | None:
    def function(a=value): ...  # type: ignore[no-untyped-def]

    found: str | None = describe(function)["parameters"][0].get("default")
    return found


class TestFacts:
    def test_old_readers_find_their_keys(self) -> None:
        def summ(a: int | float, b, z=0.5): ...  # type: ignore[no-untyped-def]

        description = describe(summ, "summ")
        assert description["func_name"] == "summ"
        assert description["func_args"] == [{"name": "a", "annotation": "int | float"}, {"name": "b"}]
        assert description["func_kwargs"] == [{"name": "z", "default": 0.5}]

    def test_old_readers_get_defaults_that_json_has(self) -> None:
        def function(a: float = math.inf, b: Any = print, *args: int, c: str = "x", **kwargs: int) -> None: ...

        assert [item["default"] for item in describe(function)["func_kwargs"]] == [None, None, "x"]

    def test_what_the_server_knows(self) -> None:
        async def work(a: int) -> int:
            """Works."""
            return a

        found = describe(work, worker="async", idempotent=True, timeout=2.5)
        assert (found["worker"], found["async"], found["idempotent"], found["timeout"]) == ("async", True, True, 2.5)
        assert (found["doc"], found["returns"], found["schema"]) == ("Works.", "int", function_schema(found))

    def test_methods_lose_self(self) -> None:
        class Service:
            def add(self, a: int) -> int:
                return a

        for function, bound in ((Service().add, True), (Service().add, False), (Service.add, True)):
            names = [item["name"] for item in describe(function, bound=bound)["parameters"]]
            assert names == ["a"]

    def test_functions_in_other_clothes(self) -> None:
        def plain(a: int, b: str = "x") -> str:
            return b

        @functools.wraps(plain)
        def wrapped(*args: Any, **kwargs: Any) -> Any: ...

        class Callable_:
            def __call__(self, a: int, b: str = "x") -> str:
                return b

        for function in (wrapped, Callable_(), functools.partial(plain), functools.lru_cache(plain)):
            found = describe(function)
            assert [item.get("annotation") for item in found["parameters"]] == ["int", "str"]
            assert found["returns"] == "str"


class Bad:
    """Everything about it fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __call__(self, *args: Any) -> None: ...


class BadMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__qualname__", "__name__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


class Worse(metaclass=BadMeta):
    pass


class TestNothingFails:
    @pytest.mark.parametrize(
        "function",
        [max, print, dict, int, Bad(), len, type, "no function", None, HTTPStatus, Worse],
        ids=lambda value: type(value).__name__,
    )
    def test_things_without_a_signature(self, function: Any) -> None:
        found = describe(function)
        assert found["func_name"] == "f" and isinstance(found["parameters"], list)

    @pytest.mark.parametrize(
        "hint",
        [
            Bad(),
            Worse,
            5,
            "1 +",
            "Nowhere",
            "a\nb",
            "\0",
            [],
            {},
            print,
            math,
            typing.Generic,
            typing.Protocol,
            Ellipsis,
            "x" * 100_000,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_annotations_that_are_none(self, hint: Any) -> None:
        assert annotation_of(hint) == "typing.Any"

    @pytest.mark.parametrize(
        "value", [Bad(), Worse, Worse(), print, object(), math, open, type, [Bad()], {"a": print}, {1: {2: Bad()}}], ids=range(11)
    )
    def test_defaults_that_cannot_be_shown(self, value: Any) -> None:
        assert default_of(value) is None

    def test_a_default_that_is_too_long_or_too_deep(self) -> None:
        deep: Any = []
        for _ in range(50):
            deep = [deep]
        assert default_of("x" * 5000) is None and default_of(deep) is None and default_of(10**5000) is None
        loop: list[Any] = []
        loop.append(loop)
        assert default_of(loop) is None

    def test_a_hint_that_is_too_deep_or_too_long(self) -> None:
        deep: Any = int
        for _ in range(200):
            deep = list[deep]
        assert "typing.Any" in str(annotation_of(deep))
        assert annotation_of(typing.Literal[tuple(f"word {n}" for n in range(3000))]) == "typing.Any"

    def test_a_docstring_that_is_none(self) -> None:
        def function() -> None: ...

        function.__doc__ = 5  # type: ignore[assignment]
        assert describe(function)["doc"] is None
        function.__doc__ = "x" * 1_000_000
        assert len(describe(function)["doc"]) < 100_000


class TestAnnotations:
    @pytest.mark.parametrize(
        ("hint", "text"),
        [
            (None, "None"),
            (typing.Optional[int], "int | None"),  # noqa: UP045
            (typing.Union[int, str], "int | str"),  # noqa: UP007
            (list, "list[typing.Any]"),
            (typing.List, "list[typing.Any]"),  # noqa: UP006
            (dict[str, typing.List[int]], "dict[str, list[int]]"),  # noqa: UP006
            (tuple, "tuple[typing.Any, ...]"),
            (typing.Tuple, "tuple[typing.Any, ...]"),  # noqa: UP006
            (tuple[()], "tuple[()]"),
            (tuple[int, ...], "tuple[int, ...]"),
            (Callable, "collections.abc.Callable[..., typing.Any]"),
            (Callable[[int], str], "collections.abc.Callable[[int], str]"),
            (Callable[..., None], "collections.abc.Callable[..., None]"),
            (typing.Callable[[int], str], "collections.abc.Callable[[int], str]"),
            (deque[int], "collections.deque[int]"),
            (OrderedDict, "collections.OrderedDict[typing.Any, typing.Any]"),
            (Counter[str], "collections.Counter[str]"),
            (typing.Literal["a", 1, None, b"x", True], 'typing.Literal["a", 1, None, b"x", True]'),
            (typing.Annotated[int, "unit", object()], 'typing.Annotated[int, "unit"]'),
            (typing.Annotated[int, object()], "int"),
            (typing.Final[int], "int"),
            (typing.ClassVar[int], "int"),
            (typing.LiteralString, "str"),
            (typing.NoReturn, "typing.Never"),
            (typing.AnyStr, "bytes | str"),
            (typing_extensions.TypeGuard[int], "bool"),
            (type[int], "type[int]"),
            (typing.Hashable, "collections.abc.Hashable"),
            (object, "object"),
            (list["Nowhere"], "typing.Any"),  # type: ignore[name-defined] # noqa: F821
            (int | Bad, "int | typing.Any"),
        ],
    )
    def test_text(self, hint: Any, text: str) -> None:
        assert annotation_of(hint) == text

    def test_classes_of_the_standard_library_come_along(self) -> None:
        def function(status: HTTPStatus = HTTPStatus.OK) -> HTTPStatus:
            return status

        found = describe(function)
        assert found["returns"] == "http.HTTPStatus" and found["parameters"][0]["default"] == "http.HTTPStatus.OK"
        assert found["types"][0]["base"] == "IntEnum"

    def test_what_is_lost_is_noted(self) -> None:
        def function(a: list[Bad], b: int) -> Bad: ...

        notes = describe(function)["notes"]
        assert len(notes) == 2 and notes[0].startswith("a: list[") and notes[1].startswith("result: ")

    def test_the_program_itself_has_the_same_name_run_or_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def function(a: Any) -> None: ...

        main = ModuleType("__main__")
        main.__file__ = "/somewhere/my-server.py"
        main.__spec__ = None
        monkeypatch.setitem(sys.modules, "__main__", main)
        for module in ("__main__", "__mp_main__", "my-server"):
            point = dataclasses.make_dataclass("Point", [("x", int)])
            point.__module__ = module
            function.__annotations__["a"] = point
            assert describe(function)["types"][0]["name"] == "my_server.Point"


class TestClasses:
    def test_classes_that_cannot_come_along(self) -> None:
        named = namedtuple("named", "a")
        odd = [
            enum.Enum("Empty", []),
            enum.Enum("Odd", {"a-b": 1}),
            enum.Enum("Hidden", {"A": object()}),
            dataclasses.make_dataclass("Private", [("__x", int)]),
            dataclasses.make_dataclass("Generic", [("x", int)], bases=(typing.Generic[typing.ParamSpec("P")],)),
            type("Plain", (), {}),
            typing.NewType("Either", int | str),  # type: ignore[valid-newtype]
        ]
        assert annotation_of(named) == "test_signature.named"
        assert [annotation_of(hint) for hint in odd] == [*["typing.Any"] * 6, "int | str"]

    def test_two_classes_of_one_name_in_one_function(self) -> None:
        first = dataclasses.make_dataclass("Same", [("x", int)])
        second = dataclasses.make_dataclass("Same", [("y", int)])

        def function(a: Any, b: Any) -> None: ...

        first.__module__ = second.__module__ = "shop"
        function.__annotations__.update(a=first, b=second)
        names = [item["annotation"] for item in describe(function)["parameters"]]
        assert names == ["shop.Same", "shop.Same_2"]

    def test_several_bases_are_flattened(self) -> None:
        @dataclasses.dataclass
        class A:
            a: int

        @dataclasses.dataclass
        class B:
            b: int = 0

        @dataclasses.dataclass
        class C(B, A):
            c: int = 0

        def function(c: Any) -> None: ...

        function.__annotations__["c"] = C
        (found,) = describe(function)["types"]
        assert [field["name"] for field in found["fields"]] == ["a", "b", "c"] and "base" not in found


class TestSchema:
    def test_changes_with_what_matters_to_a_caller(self) -> None:
        def base(a: int, b: str = "x") -> int: ...

        def default(a: int, b: str = "other") -> int:
            """And a docstring."""

        def renamed(a: int, c: str = "x") -> int: ...

        def retyped(a: float, b: str = "x") -> int: ...

        def required(a: int, b: str) -> int: ...

        def keyword(a: int, *, b: str = "x") -> int: ...

        def result(a: int, b: str = "x") -> str: ...

        known = function_schema(describe(base))
        assert len(known) == 16 and int(known, 16) >= 0
        assert function_schema(describe(default, worker="process", timeout=5.0)) == known
        others = {function_schema(describe(other)) for other in (renamed, retyped, required, keyword, result)}
        others |= {function_schema(describe(base, "g")), function_schema(describe(base, idempotent=True))}
        assert len(others | {known}) == 8

    def test_changes_with_a_type(self) -> None:
        def function(a: Any) -> None: ...

        schemas = set()
        for fields in ([("x", int)], [("x", str)], [("x", int), ("y", int)]):
            function.__annotations__["a"] = dataclasses.make_dataclass("Point", fields)
            schemas.add(function_schema(describe(function)))
        assert len(schemas) == 3

    def test_of_the_server_is_the_same_in_any_order(self) -> None:
        one, two = describe(max, "one"), describe(max, "two")
        assert server_schema([one, two]) == server_schema([two, one]) != server_schema([one])

    def test_never_fails(self) -> None:
        for description in ({}, {"parameters": 5}, {"parameters": [5]}, {"types": 5}, {"types": [5]}, {"func_name": object()}):
            assert len(function_schema(description)) == 16


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.text(),
        st.binary(),
        st.dates(),
        st.datetimes(),
        st.times(),
        st.timedeltas(),
        st.decimals(),
        st.fractions(),
        st.uuids(),
        st.sampled_from(HTTPStatus),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(values)
def test_a_default_in_the_stub_is_the_servers(value: Any) -> None:
    def function(a: Any = value) -> None: ...

    description = describe(function)
    (parameter,) = description["parameters"]
    if "default" not in parameter:
        assert parameter["hidden"] is True
        return
    stub: dict[str, Any] = {"__name__": __name__}
    exec(compile(generate([description], queue="q"), "stub", "exec"), stub)
    (shown,) = stub["f"].__wrapped__.__defaults__
    assert repr(shown).replace("<HTTPStatus.", "") == repr(value).replace("<HTTPStatus.", "")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=200))
def test_a_docstring_in_the_stub_is_the_servers(text: str) -> None:
    def function() -> None: ...

    function.__doc__ = text
    description = describe(function)
    stub: dict[str, Any] = {"__name__": __name__}
    exec(compile(generate([description], queue="q"), "stub", "exec"), stub)
    if text.isprintable() and (description["doc"] or "").strip():
        assert stub["f"].__doc__ == description["doc"].strip()
