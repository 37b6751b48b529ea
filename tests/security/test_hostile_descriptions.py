"""A server that wants its own code in the caller's file: whatever it describes, it gets an error or a plain stub."""

from __future__ import annotations

import ast
import sys
from typing import Any

import pytest
from hostile_texts import ATTACKS, VALUE_ATTACKS, field_of, function, parameter
from stub_shape import plain

from prpc.exceptions import DecodeError
from prpc.stubs.codegen import generate


@pytest.mark.parametrize("text", ATTACKS, ids=lambda text: repr(text)[:40])
def test_annotations_outside_the_grammar_are_refused(text: Any) -> None:
    for description in (
        function(parameters=[parameter(annotation=text)]),
        function(returns=text),
        field_of("dataclass", annotation=text),
        field_of("typeddict", annotation=text),
        function(types=[{"name": "m.A", "kind": "alias", "value": text}]),
        function(types=[{"name": "m.A", "kind": "newtype", "value": text}]),
        function(types=[{"name": "m.A", "kind": "model", "root": text}]),
        function(types=[{"name": "m.A", "kind": "dataclass", "base": text}]),
        function(types=[{"name": "m.A", "kind": "dataclass", "type_params": [{"name": "T", "bound": text}]}]),
    ):
        with pytest.raises(DecodeError) as caught:
            generate([description], queue="q")
        assert "'f'" in str(caught.value)


@pytest.mark.parametrize("text", VALUE_ATTACKS, ids=lambda text: repr(text)[:40])
def test_values_outside_the_grammar_are_refused(text: Any) -> None:
    enum = {"name": "m.E", "kind": "enum", "base": "Enum", "members": [{"name": "A", "value": text}]}
    for description in (
        function(parameters=[parameter(default=text)]),
        field_of("dataclass", default=text),
        field_of("model", default=text),
        field_of("model", arguments={"alias": text}),
        function(types=[enum]),
    ):
        with pytest.raises(DecodeError):
            generate([description], queue="q")


NAMES = [
    "a b",
    "a-b",
    "1a",
    "",
    "class",
    "None",
    "__debug__",
    "a\n",
    "a=1",
    "a, b",
    "a\u2028",
    "*a",
    "a:int",
    5,
    None,
    ["a"],
    {},
    "a" * 300,
    "\uff41 b",
    "\0",
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_that_are_none_are_refused(name: Any) -> None:
    for description in (
        function(parameters=[parameter(name=name)]),
        field_of("dataclass", name=name),
        field_of("namedtuple", name=name),
        field_of("model", name=name),
        function(types=[{"name": "m.E", "kind": "enum", "base": "Enum", "members": [{"name": name, "value": "1"}]}]),
        function(types=[{"name": "m.G", "kind": "dataclass", "type_params": [{"name": name}]}]),
        function(types=[{"name": f"m.{name}", "kind": "dataclass"}]),
    ):
        with pytest.raises(DecodeError):
            generate([description], queue="q")


@pytest.mark.parametrize("name", ["__init__", "__class__", "__slots__", "__eq__", "__x", "__annotations__", "__del__"])
def test_fields_and_members_cannot_change_what_a_class_is(name: str) -> None:
    for description in (
        field_of("dataclass", name=name),
        field_of("namedtuple", name=name),
        field_of("model", name=name),
        function(types=[{"name": "m.E", "kind": "enum", "base": "Enum", "members": [{"name": name, "value": "1"}]}]),
    ):
        with pytest.raises(DecodeError):
            generate([description], queue="q")
    assert plain(generate([field_of("typeddict", name=name)], queue="q"))  # a key, and written as one


FUNCTION_NAMES = [
    "f\nimport os",
    "f():\n    import os\ndef g",
    "__import__",
    "__getattr__",
    "__builtins__",
    "__all__",
    "remote_function",
    "Any",
    "a'b",
    'a"b',
    "a\\",
    "a\u2028b",
    "a\0b",
    "\ud800",
    "lambda",
    "f;g",
    "#",
    "'''",
    '"""',
    "\uff52emote_function",
    "NotImplementedError",
    "SERVER_SCHEMA",
    "annotations",
    "int",
    "cast",
    "a.__class__",
    "..",
    ".",
    "💥",
    " ",
]


@pytest.mark.parametrize("name", FUNCTION_NAMES, ids=repr)
def test_names_of_functions_stay_texts(name: str) -> None:
    harmless = function(
        parameters=[parameter(annotation="typing.Any", default="1"), parameter(name="b", annotation="int", default="'x'")]
    )
    source = generate([{**harmless, "func_name": name}, {**harmless, "func_name": "other"}], queue="q")
    assert plain(source)
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    assert [ast.literal_eval(node.decorator_list[0].args[0]) for node in calls] == [name, "other"]  # type: ignore[attr-defined]


TEXTS = [
    '"""',
    "'''",
    '"""\nimport os\n"""',
    "\\",
    '\\"""',
    '\\\\"""',
    '"',
    '""',
    '""""',
    "a\\",
    "\0",
    "\u2028import os",
    "\r\nimport os",
    "\x0cimport os",
    "\ud800",
    "{__import__('os')}",
    "\\N{DIGIT ONE}",
    "\\x22\\x22\\x22",
    "# fmt: on",
    "x" * 5000,
    "\u202etxt.exe",
    'a"""b\\"""c\\\\"""',
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text)[:30])
def test_texts_stay_texts(text: str) -> None:
    member = {
        "name": "m.E",
        "kind": "enum",
        "base": "Enum",
        "members": [{"name": "A", "value": "1"}],
        "doc": text,
        "notes": [text[:900]],
    }
    source = generate([function(doc=text, notes=[text[:900]], types=[member], returns="m.E")], queue=text[:100])
    assert plain(source)
    described = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    doc = ast.get_docstring(described[0], clean=True)
    if text.isprintable():
        assert (doc or "") == text.strip()


def test_types_cannot_take_the_place_of_what_the_file_imports() -> None:
    for name in (
        "prpc.app_client.remote_function",
        "dataclasses.dataclass",
        "enum.Enum",
        "typing.cast",
        "typing.TypeVar",
        "pydantic.Field",
    ):
        kinds: list[dict[str, Any]] = [
            {"name": name, "kind": "enum", "base": "Enum", "members": [{"name": "A", "value": "1"}]},
            {
                "name": "m.D",
                "kind": "dataclass",
                "type_params": [{"name": "T"}],
                "fields": [{"name": "x", "factory": "list", "kw_only": True}],
            },
            {
                "name": "m.M",
                "kind": "model",
                "fields": [{"name": "x", "arguments": {"alias": "'y'"}, "default": "1", "annotation": "str"}],
            },
        ]
        source = generate([function(types=kinds, parameters=[parameter(annotation="str", default="1")])], queue="q")
        assert plain(source)
        exec(compile(source, "stub", "exec"), {"__name__": __name__})


@pytest.mark.parametrize(
    "known",
    ["typing.Any", "builtins.int", "collections.abc.Sequence", "int", "T", "m.__import__('os')", "m.x\ny", "m..x", "m.", ".m"],
)
def test_types_cannot_take_the_place_of_known_ones(known: str) -> None:
    with pytest.raises(DecodeError):
        generate([function(types=[{"name": known, "kind": "dataclass"}])], queue="q")


CIRCLES = [
    [{"name": "m.A", "kind": "dataclass", "base": "m.A"}],
    [{"name": "m.A", "kind": "dataclass", "base": "m.B"}, {"name": "m.B", "kind": "dataclass", "base": "m.A"}],
    [{"name": "m.A", "kind": "newtype", "value": "m.B"}, {"name": "m.B", "kind": "newtype", "value": "m.A"}],
    [{"name": "m.A", "kind": "enum", "base": "Enum", "members": [{"name": "X", "value": "m.A.X"}]}],
    [{"name": "m.A", "kind": "dataclass", "fields": [{"name": "x", "annotation": "m.A", "default": "m.A(x=None)"}]}],
    [{"name": f"m.A{n}", "kind": "dataclass", "base": f"m.A{n + 1}"} for n in range(3000)],
    [{"name": "m.A", "kind": "dataclass"}, {"name": "m.A", "kind": "dataclass"}],
]


@pytest.mark.parametrize("types", CIRCLES, ids=range(len(CIRCLES)))
def test_types_that_need_themselves_are_refused(types: list[Any]) -> None:
    with pytest.raises(DecodeError):
        generate([function(types=types)], queue="q")


@pytest.mark.parametrize("kind", ["dataclass", "model"])
@pytest.mark.parametrize("above", ["typeddict", "namedtuple", "enum", "alias", "newtype", "dataclass", "model"])
def test_bases_are_of_the_same_kind(kind: str, above: str) -> None:
    """A dataclass makes code of its fields' names, and those of a TypedDict can be any text."""
    field = {"name": "x=print()" if above == "typeddict" else "x", "annotation": "int"}
    base = {"name": "m.A", "kind": above, "fields": [field], "value": "int"}
    if above == "enum":
        base["base"] = "Enum"
    types = [base, {"name": "m.B", "kind": kind, "base": "m.A"}]
    if kind == above:
        assert plain(generate([function(types=types)], queue="q"))
    else:
        with pytest.raises(DecodeError, match="another kind"):
            generate([function(types=types)], queue="q")


def test_recursive_types_are_no_attack() -> None:
    types: list[dict[str, Any]] = [
        {"name": "m.A", "kind": "dataclass", "fields": [{"name": "x", "annotation": "m.B | None", "default": "None"}]},
        {"name": "m.B", "kind": "dataclass", "fields": [{"name": "x", "annotation": "list[m.A | m.B]", "factory": "list"}]},
    ]
    assert plain(generate([function(types=types, returns="m.A")], queue="q"))


WRONG_KINDS: list[Any] = [
    None,
    5,
    "x",
    [1],
    {"x": 1},
    [None],
    [[]],
    [{}],
    [{"func_name": 5}],
    [{"func_name": ""}],
    [{"func_name": "f"}] * 2,
    [{1: 2}],
]


@pytest.mark.parametrize("answer", WRONG_KINDS, ids=repr)
def test_answers_of_another_form_are_refused(answer: Any) -> None:
    with pytest.raises(DecodeError):
        generate(answer, queue="q")


WRONG_FIELDS: list[dict[str, Any]] = [
    {"parameters": None},
    {"parameters": "x"},
    {"parameters": [5]},
    {"parameters": [{"name": "a"}]},
    {"parameters": [parameter(kind="x")]},
    {"parameters": [parameter(kind=5)]},
    {"parameters": [parameter(kind=[])]},
    {"parameters": [parameter(), parameter()]},
    {"parameters": [parameter(hidden="yes")]},
    {"parameters": [parameter(default="1"), parameter(name="b")]},
    {"parameters": [parameter(kind="KEYWORD_ONLY"), parameter(name="b")]},
    {"parameters": [parameter(kind="VAR_POSITIONAL"), parameter(name="b", kind="VAR_POSITIONAL")]},
    {"parameters": [parameter(kind="VAR_KEYWORD", default="1")]},
    {"parameters": [parameter(name=f"a{n}") for n in range(5000)]},
    {"doc": 5},
    {"doc": ["x"]},
    {"doc": "x" * 200_000},
    {"notes": "x"},
    {"notes": [5]},
    {"notes": ["x"] * 5000},
    {"idempotent": "yes"},
    {"idempotent": 2},
    {"returns": 5},
    {"types": "x"},
    {"types": {}},
    {"types": [5]},
    {"types": [{}]},
    {"types": [{"name": "m.T"}]},
    {"types": [{"name": "m.T", "kind": "x"}]},
    {"types": [{"name": "m.T", "kind": []}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "fields": 5}]},
    {"types": [{"name": "m.T", "kind": "enum"}]},
    {"types": [{"name": "m.T", "kind": "enum", "base": "IntEnum", "members": [{"name": "A", "value": "'x'"}]}]},
    {"types": [{"name": "m.T", "kind": "enum", "base": [], "members": []}]},
    {"types": [{"name": "m.T", "kind": "enum", "base": "Enum", "members": [5]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "options": {"init": False}}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "options": {"frozen": "print()"}}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "options": {"order": True, "eq": False}}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "fields": [{"name": "x", "default": "[]"}]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "fields": [{"name": "x", "factory": "print"}]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "fields": [{"name": "x", "factory": []}]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "fields": [{"name": "x"}, {"name": "x"}]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "type_params": [{"name": "T"}, {"name": "T"}]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "type_params": [{"name": "T", "variance": "x=print()"}]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "type_params": [{"name": "T", "constraints": ["int"]}]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "type_params": 5}]},
    {"types": [{"name": "m.T", "kind": "model", "config": {"arbitrary_types_allowed": True}}]},
    {"types": [{"name": "m.T", "kind": "model", "config": {"extra": "print()"}}]},
    {"types": [{"name": "m.T", "kind": "model", "config": []}]},
    {"types": [{"name": "m.T", "kind": "model", "fields": [{"name": "x", "arguments": {"default_factory": "print"}}]}]},
    {"types": [{"name": "m.T", "kind": "model", "fields": [{"name": "x", "arguments": {"alias": "[]"}}]}]},
    {"types": [{"name": "m.T", "kind": "newtype", "value": "int | str"}]},
    {"types": [{"name": "m.T", "kind": "newtype", "value": "typing.Any"}]},
    {"types": [{"name": "m.T", "kind": "typeddict", "fields": [{"name": 5}]}]},
    {"types": [{"name": f"m.T{n}", "kind": "dataclass"} for n in range(6000)]},
    {
        "types": [{"name": "m.F", "kind": "enum", "base": "Flag", "members": [{"name": "A", "value": "1"}]}],
        "parameters": [parameter(default="m.F(6)")],
    },
    {"types": [{"name": "m.F", "kind": "enum", "base": "Flag", "members": [{"name": "A", "value": "-1"}]}]},
    {"types": [{"name": "m.T", "kind": "dataclass", "fields": [{"name": "x"}]}], "parameters": [parameter(default="m.T()")]},
    {
        "types": [{"name": "m.T", "kind": "dataclass", "fields": [{"name": "x"}]}],
        "parameters": [parameter(default="m.T(x=1, y=2)")],
    },
    {
        "types": [{"name": "m.T", "kind": "dataclass", "fields": [{"name": "x"}]}],
        "parameters": [parameter(default="m.T(x=print())")],
    },
]


@pytest.mark.parametrize("more", WRONG_FIELDS, ids=range(len(WRONG_FIELDS)))
def test_descriptions_of_another_form_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="'f' is refused"):
        generate([function(**more)], queue="q")


def test_too_many_functions_are_refused() -> None:
    with pytest.raises(DecodeError):
        generate([function(func_name=f"f{n}") for n in range(20_000)], queue="q")


def test_deep_values_are_refused_and_not_crashed_on() -> None:
    deep: Any = "x"
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    with pytest.raises(DecodeError):
        generate([function(types=[{"name": "m.T", "kind": "dataclass", "options": {"frozen": deep}}])], queue="q")
    with pytest.raises(DecodeError):
        generate([function(parameters=[parameter(unknown=deep, kind=deep)])], queue="q")
