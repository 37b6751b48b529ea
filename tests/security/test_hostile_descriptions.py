"""A server that wants its own code in the caller's file: whatever it describes, it gets an error or a plain stub."""

from __future__ import annotations

import ast
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prpc.exceptions import DecodeError
from prpc.stubs.codegen import generate

# What a generated file may consist of, written down independently of the generator.

MODULES = {
    "__future__",
    "annotated_types",
    "builtins",
    "collections",
    "collections.abc",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "ipaddress",
    "os",
    "pathlib",
    "prpc.app_client",
    "pydantic",
    "typing",
    "typing_extensions",
    "uuid",
    "zoneinfo",
}
BUILTINS = "bool int float complex str bytes bytearray memoryview object range list set frozenset type dict tuple"
IMPORTED_FROM = {"os": {"PathLike"}, "builtins": set(BUILTINS.split())}
CALLED = {
    "remote_function",
    "dataclass",
    "field",
    "Field",
    "ConfigDict",
    "TypeVar",
    "NewType",
    "TypeAliasType",
    "TypedDict",
    "cast",
    "set",
    "frozenset",
    "bytearray",
    "complex",
    "float",
    "date",
    "datetime",
    "time",
    "timedelta",
    "timezone",
    "Decimal",
    "Fraction",
    "Path",
    "PurePath",
    "PurePosixPath",
    "PureWindowsPath",
    "UUID",
    "Gt",
    "Ge",
    "Lt",
    "Le",
    "MultipleOf",
    "MinLen",
    "MaxLen",
}
EXPRESSIONS = (
    ast.Constant,
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.BinOp,
    ast.BitOr,
    ast.Tuple,
    ast.List,
    ast.Set,
    ast.Dict,
    ast.Call,
    ast.keyword,
    ast.UnaryOp,
    ast.USub,
    ast.Load,
)


class Shape:
    """Refuses every syntax tree that is no plain stub."""

    def __init__(self, tree: ast.Module) -> None:
        self.origin: dict[str, str] = {}
        self.classes: set[str] = set()
        for node in tree.body:
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.ImportFrom(module=str(module), names=names, level=0):
                assert module in MODULES
                for name in names:
                    assert name.name != "*" and name.name in IMPORTED_FROM.get(module, {name.name})
                    self.origin[name.asname or name.name] = name.name
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                self.expression(value)
                self.classes.add(target)
            case ast.AnnAssign(target=ast.Name(id="SERVER_DEFAULT"), value=ast.Constant()):
                pass
            case ast.ClassDef():
                self.class_(node)
            case ast.FunctionDef():
                self.function(node)
            case _:
                raise AssertionError(ast.dump(node)[:200])

    def class_(self, node: ast.ClassDef) -> None:
        assert not node.keywords and len(node.decorator_list) <= 1
        for expression in (*node.bases, *node.decorator_list):
            self.expression(expression)
        self.classes.add(node.name)
        for item in node.body:
            match item:
                case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                    assert not name.startswith("__")
                    self.expression(annotation)
                    if value is not None:
                        self.expression(value)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    assert not name.startswith("__")
                    self.expression(value)
                case _:
                    raise AssertionError(ast.dump(item)[:200])

    def function(self, node: ast.FunctionDef) -> None:
        match node.decorator_list:
            case [ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str())], keywords=keywords)]:
                assert self.origin[name] == "remote_function"
                assert all(isinstance(keyword.value, ast.Constant) for keyword in keywords)
            case _:
                raise AssertionError("a function without its decorator")
        assert not node.name.startswith("__")
        for value in (*node.args.defaults, *node.args.kw_defaults, node.returns):
            if value is not None:
                self.expression(value)
        everyone = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        for argument in everyone:
            if argument is not None and argument.annotation is not None:
                self.expression(argument.annotation)
        *docs, last = node.body
        assert ast.dump(last) == ast.dump(ast.parse("raise NotImplementedError").body[0])
        assert all(isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) for doc in docs) and len(docs) < 2

    def expression(self, tree: ast.expr) -> None:
        for node in ast.walk(tree):
            assert isinstance(node, EXPRESSIONS), ast.dump(node)[:200]
            if isinstance(node, ast.Attribute):
                assert isinstance(node.value, ast.Name) and not node.attr.startswith("__")
            if isinstance(node, ast.Call):
                assert isinstance(node.func, ast.Name)
                name = node.func.id
                assert self.origin.get(name, name) in CALLED or name in self.classes, name


def plain(source: str) -> bool:
    """Whether the file is nothing but a stub."""
    assert "\0" not in source and source.isprintable() is False  # it has lines
    # No second kind of line, no hidden direction.
    assert not set(source) & set("\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\u202e\u2066")
    tree = ast.parse(source)
    compile(source, "server_func.py", "exec", dont_inherit=True)
    Shape(tree)
    return True


def function(**more: Any) -> dict[str, Any]:
    return {"func_name": "f", "parameters": [], "returns": None, **more}


def parameter(**more: Any) -> dict[str, Any]:
    return {"name": "a", "kind": "POSITIONAL_OR_KEYWORD", **more}


def field_of(kind: str, **more: Any) -> dict[str, Any]:
    return function(types=[{"name": "m.T", "kind": kind, "fields": [{"name": "x", "annotation": "int", **more}]}], returns="m.T")


ATTACKS = [
    "__import__('os').system('x')",
    "os.system",
    "os",
    "int\nimport os",
    "int; import os",
    "int\r\nimport os",
    "int\u2028import os",
    "int\x0cimport os",
    "int) -> None:\n    import os\ndef g(",
    "lambda: 0",
    "(x := 1)",
    "f'{1}'",
    "f'{__import__(\"os\")}'",
    "[x for x in y]",
    "*int",
    "**int",
    "await x",
    "yield",
    "int if 1 else str",
    "int and str",
    "not int",
    "int.__class__",
    "typing.Any.__subclasses__",
    "().__class__",
    "typing.sys",
    "typing.get_type_hints",
    "builtins.eval",
    "eval",
    "exec",
    "print",
    "open('x')",
    "type('X', (), {})",
    "type(int)",
    "int.from_bytes",
    "datetime.sys.modules",
    "datetime.datetime.now()",
    "collections.namedtuple('a', 'b')",
    "pydantic.create_model",
    "\uff45\uff56\uff41\uff4c",
    "\u0456nt",
    "__builtins__",
    "self",
    "f",
    "remote_function",
    "NotImplementedError",
    "\\",
    "'",
    '"""',
    "'''",
    "int'",
    "int\\\nint",
    "",
    " ",
    "\0",
    "int\0",
    "\ud800",
    "..." * 3,
    "1 +",
    "(",
    "[" * 300,
    "(" * 5000 + ")" * 5000,
    "-" * 50_000 + "1",
    "list[" * 80 + "int" + "]" * 80,
    "a." * 9000 + "b",
    "int | " * 9000 + "int",
    "typing.Literal[print()]",
    "typing.Literal[lambda: 0]",
    "typing.Literal[__import__]",
    "typing.Annotated[int, print('x')]",
    "typing.Annotated[int, pydantic.Field(default_factory=print)]",
    "typing.Annotated[int, pydantic.BeforeValidator(print)]",
    "typing.Annotated[int, annotated_types.Ge(print())]",
    "typing.Annotated[int, annotated_types.Predicate(func=eval)]",
    "list[int, str]",
    "dict[int]",
    "int[str]",
    "list",
    "typing.Annotated[int]",
    "typing.ForwardRef('x')",
    "list['__import__']",
    "collections.abc.Callable[print(), int]",
    "collections.abc.Callable[int]",
    "typing.Unpack[int, str]",
    "typing.Literal[1.5]",
    "tuple[int, ..., str]",
    "int | print()",
    "int | 'x'",
    "1 | 2",
    "None.x",
    "m.Z",
    "uuid.uuid4",
    "typing.TYPE_CHECKING",
    "pathlib.os",
    "pathlib.Path.home",
    "enum.Enum",
    "typing.Generic[int]",
    "typing.cast",
    "prpc.app_client.remote_function",
    5,
    1.5,
    True,
    [],
    ["int"],
    {},
    {"int": 1},
    b"int",
]

VALUE_ATTACKS = [
    *(attack for attack in ATTACKS if not isinstance(attack, bool | int | float | bytes)),
    "b''.__class__",
    "[].append",
    "{}.get",
    "{**{}}",
    "[*[]]",
    "{[]: 1}",
    "{[1]}",
    "set([[]])",
    "1j",
    "1e999",
    "-1e999",
    "0x" + "f" * 9000,
    "9" * 5000,
    "-True",
    "+1",
    "~1",
    "1 + 1",
    "'a' * 10**9",
    "bytearray(10**12)",
    "bytes(5)",
    "range(5)",
    "object()",
    "open",
    "dict()",
    "frozenset(print())",
    "float('x')",
    "float([])",
    "complex('a')",
    "datetime.datetime(1, 2)",
    "datetime.datetime(2020, 13, 1)",
    "datetime.datetime.now()",
    "datetime.date.today()",
    "datetime.timedelta(10**12)",
    "datetime.timezone.min",
    "datetime.timezone(5)",
    "datetime.datetime(2020, 1, 1, tzinfo=print())",
    "decimal.Decimal('x')",
    "decimal.getcontext()",
    "fractions.Fraction('1e1000000000')",
    "fractions.Fraction(1, 0)",
    "fractions.Fraction(decimal.Decimal('1e999999'))",
    "uuid.UUID('x')",
    "uuid.uuid4()",
    "uuid.UUID(int=1)",
    "pathlib.Path.home()",
    "pathlib.Path(5)",
    "pathlib.os.system('x')",
    "pydantic.BaseModel()",
    "m.T()",
    "typing.cast(int, 1)",
    "(yield)",
    "int()",
    "list()",
    "[" + "1," * 20_000 + "]",
    "'" + "a" * 30_000 + "'",
    "float(*[1])",
    "float(**{})",
    "datetime.date(year=1)",
]


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


# Anything at all.

texts = st.one_of(
    st.sampled_from([str(attack) for attack in ATTACKS + VALUE_ATTACKS if len(str(attack)) < 200]),
    st.sampled_from(
        [
            "int",
            "list[int]",
            "m.T",
            "m.T.A",
            "m.T()",
            "m.T(x=1)",
            "typing.Any",
            "1",
            "'a'",
            "T",
            "m.T[int]",
            "m.U",
            "Enum",
            "Flag",
            "list",
        ]
    ),
    st.text(max_size=20),
)
names = st.one_of(st.sampled_from(["a", "b", "x", "T", "A", "int", "list", "Any", "class", "__x__", "field", "datetime"]), texts)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


def _dict(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: st.one_of(part, part, part, anything) for key, part in parts.items()})


kinds = st.sampled_from(["POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL", "KEYWORD_ONLY", "VAR_KEYWORD"])
parameters = _dict(name=names, kind=kinds, annotation=texts, default=texts, hidden=st.booleans())
fields = _dict(
    name=names, annotation=texts, default=texts, factory=texts, required=st.booleans(), init=st.booleans(), kw_only=st.booleans()
)
members = _dict(name=names, value=texts)
types = _dict(
    name=st.sampled_from(["m.T", "m.U", "n.T", "m.list"]),
    kind=st.sampled_from(["dataclass", "model", "enum", "namedtuple", "typeddict", "newtype", "alias"]),
    base=st.sampled_from(["Enum", "IntEnum", "m.T", "m.U[int]", None]),
    fields=st.lists(fields, max_size=3),
    members=st.lists(members, max_size=3),
    doc=texts,
    value=texts,
    root=st.none(),
    type_params=st.lists(_dict(name=names, bound=st.none()), max_size=2),
    options=st.dictionaries(st.sampled_from(["frozen", "order"]), st.booleans()),
)
descriptions = _dict(
    func_name=names,
    parameters=st.lists(parameters, max_size=4),
    returns=texts,
    doc=texts,
    types=st.lists(types, max_size=3),
    notes=st.lists(texts, max_size=2),
    idempotent=st.booleans(),
    func_args=st.lists(_dict(name=names, annotation=texts), max_size=2),
    func_kwargs=st.lists(_dict(name=names, default=anything), max_size=2),
)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.lists(descriptions, max_size=3), anything), texts)
def test_whatever_arrives_there_is_a_stub_or_an_error(answer: Any, queue: str) -> None:
    try:
        source = generate(answer, queue=queue)
    except DecodeError:
        return
    assert plain(source)
    assert generate(answer, queue=queue) == source


# Mostly in order, so that most of it is written.

good_names = st.sampled_from(["a", "b", "x", "T", "list", "Any", "field", "datetime", "cast", "int", "Enum", "name", "value"])
good_annotations = st.sampled_from(
    [
        "int",
        "str",
        "list[int]",
        "typing.Any",
        "m.A",
        "m.B | None",
        "tuple[m.C, ...]",
        "typing.Literal['a', 1]",
        "dict[str, m.D]",
        "datetime.date",
    ]
)
good_values = st.sampled_from(
    [
        "1",
        "'a'",
        "None",
        "(1, 2)",
        "m.C.x",
        "m.C.a",
        "m.A(x=1)",
        "m.B(a=1, x=2)",
        "datetime.date(2020, 1, 1)",
        "frozenset({1})",
        "[1]",
    ]
)
bad = st.sampled_from([attack for attack in ATTACKS if isinstance(attack, str) and len(attack) < 30])


def _mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 60).flatmap(lambda number: good if number else bad)


def _entry(optional: dict[str, st.SearchStrategy[Any]], **needed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {key: _mostly(part) for key, part in needed.items()}, optional={key: _mostly(part) for key, part in optional.items()}
    )


def _unique(entries: st.SearchStrategy[dict[str, Any]], most: int = 4) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(entries, max_size=most, unique_by=lambda entry: str(entry["name"]))


good_fields = _unique(
    _entry(
        {"default": good_values, "kw_only": st.booleans(), "factory": st.just("list")},
        name=good_names,
        annotation=good_annotations,
    )
)
classes = st.tuples(
    *(
        st.fixed_dictionaries(
            {
                "name": st.just(name),
                "kind": st.sampled_from(["dataclass", "namedtuple", "model", "typeddict"]),
                "fields": good_fields,
            },
            optional={"options": st.just({"frozen": True}), "doc": texts, "base": st.sampled_from(["m.A", "m.B"])},
        )
        for name in ("m.A", "m.B")
    ),
    st.fixed_dictionaries(
        {"name": st.just("m.C"), "kind": st.just("enum"), "base": st.sampled_from(["Enum", "IntEnum", "Flag", "str"])}
        | {"members": _unique(_entry({}, name=good_names, value=st.sampled_from(["1", "2", "'a'", "m.A(x=1)"])))}
    ),
    st.fixed_dictionaries({"name": st.just("m.D"), "kind": st.sampled_from(["alias", "newtype"]), "value": good_annotations}),
)
good_parameters = _unique(
    _entry({"default": good_values, "annotation": good_annotations}, name=good_names, kind=st.just("KEYWORD_ONLY"))
)
good_functions = st.fixed_dictionaries(
    {
        "func_name": st.one_of(good_names, texts),
        "parameters": good_parameters,
        "types": classes.map(list),
        "returns": good_annotations,
        "doc": texts,
    }
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(good_functions, min_size=1, max_size=2))
def test_what_is_mostly_in_order_gives_a_stub_or_an_error(answer: Any) -> None:
    test_whatever_arrives_there_is_a_stub_or_an_error.hypothesis.inner_test(answer, "q")  # type: ignore[attr-defined]


def test_deep_values_are_refused_and_not_crashed_on() -> None:
    deep: Any = "x"
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    with pytest.raises(DecodeError):
        generate([function(types=[{"name": "m.T", "kind": "dataclass", "options": {"frozen": deep}}])], queue="q")
    with pytest.raises(DecodeError):
        generate([function(parameters=[parameter(unknown=deep, kind=deep)])], queue="q")
