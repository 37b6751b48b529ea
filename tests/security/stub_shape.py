"""What a generated file may consist of, written down independently of the generator."""

from __future__ import annotations

import ast

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
