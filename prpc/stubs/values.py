"""Defaults and enum values of a description: text -> tree, or DecodeError.

Let through are literals, lists, tuples, dicts and sets of them, enum members, calls of `known.CONSTRUCTORS` and of the
description's own dataclasses and named tuples. A known constructor is really called here, with the literals that stand
in the text, so that what is written can be imported; the description's own classes exist only as names.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import fractions
import math
import pathlib
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from prpc.stubs.grammar import Known, deeper, dotted, own, parse, refused, shown
from prpc.stubs.known import CONSTRUCTORS
from prpc.stubs.tree import Atom, Bracket, Entry, Keyword, Member, Node, Ref, string

__all__ = ["Values", "read_value"]

#: Widest whole number, in bits: Python refuses to print more than 4,300 digits.
MAX_BITS = 12_000


def read_value(text: object, known: Known) -> Node:
    """The tree of a value. Raises DecodeError for anything beyond the grammar."""
    return Values(known).read(parse(text, "value"), 0)[0]


class _Instance:
    """Stands for an object of a class that exists only in the stub. It cannot be hashed, so it is in no set."""

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class _EnumMember:
    """Stands for a member of an enum that exists only in the stub."""

    name: str


def _bytearray(value: bytes = b"") -> bytearray:
    if not isinstance(value, bytes):
        raise TypeError("bytearray takes bytes here: a number would be a size")
    return bytearray(value)


def _fraction(numerator: int, denominator: int = 1) -> fractions.Fraction:
    if not (isinstance(numerator, int) and isinstance(denominator, int)):
        raise TypeError("Fraction takes whole numbers here: a text can stand for a huge one")
    return fractions.Fraction(numerator, denominator)


_CALLS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "builtins.bytearray": _bytearray,
        "builtins.complex": complex,
        "builtins.float": float,
        "builtins.frozenset": frozenset,
        "builtins.set": set,
        "datetime.date": datetime.date,
        "datetime.datetime": datetime.datetime,
        "datetime.time": datetime.time,
        "datetime.timedelta": datetime.timedelta,
        "datetime.timezone": datetime.timezone,
        "decimal.Decimal": decimal.Decimal,
        "fractions.Fraction": _fraction,
        "pathlib.Path": pathlib.PurePath,
        "pathlib.PurePath": pathlib.PurePath,
        "pathlib.PurePosixPath": pathlib.PurePosixPath,
        "pathlib.PureWindowsPath": pathlib.PureWindowsPath,
        "uuid.UUID": uuid.UUID,
    }
)


@dataclass(frozen=True, slots=True)
class Values:
    """Reads values; each method gives the tree and what it stands for."""

    known: Known

    def read(self, node: ast.expr, depth: int) -> tuple[Node, Any]:
        """Any value. Raises DecodeError."""
        depth = deeper(depth)
        match node:
            case ast.List() | ast.Tuple() | ast.Set():
                return self._display(node, depth)
            case ast.Dict():
                return self._dict(node, depth)
            case ast.Call():
                return self._call(node, depth)
            case ast.Attribute():
                return self._attribute(node)
        return _plain(node)

    def literal(self, node: ast.expr) -> Node:
        """What `Literal` may list: text, bytes, whole numbers, True, False, None, enum members."""
        tree, value = self._attribute(node) if isinstance(node, ast.Attribute) else _plain(node)
        if isinstance(value, float):
            raise refused(f"{shown(node)} is no literal")
        return tree

    def keywords(self, node: ast.Call, allowed: Collection[str], depth: int) -> tuple[tuple[Node, ...], dict[str, Any]]:
        """The keyword arguments of a call. Raises DecodeError where one is not allowed or given twice."""
        trees: list[Node] = []
        values: dict[str, Any] = {}
        for word in node.keywords:
            if word.arg is None or word.arg not in allowed or word.arg in values:
                raise refused(f"value {shown(node)} has an argument that is not allowed")
            tree, values[word.arg] = self.read(word.value, depth)
            trees.append(Keyword(word.arg, tree))
        return tuple(trees), values

    def _display(self, node: ast.List | ast.Tuple | ast.Set, depth: int) -> tuple[Node, Any]:
        pairs = [self.read(item, depth) for item in node.elts]
        trees, values = tuple(tree for tree, _ in pairs), [value for _, value in pairs]
        match node:
            case ast.List():
                return Bracket(None, "[]", trees), values
            case ast.Tuple():
                return Bracket(None, "()", trees), tuple(values)
        return Bracket(None, "{}", trees), _built(set, node, values)

    def _dict(self, node: ast.Dict, depth: int) -> tuple[Node, Any]:
        entries: list[Node] = []
        values: list[tuple[Any, Any]] = []
        for key, item in zip(node.keys, node.values, strict=True):
            if key is None:
                raise refused(f"value {shown(node)} is not allowed")
            (key_tree, key_value), (tree, value) = self.read(key, depth), self.read(item, depth)
            entries.append(Entry(key_tree, tree))
            values.append((key_value, value))
        return Bracket(None, "{}", tuple(entries)), _built(dict, node, values)

    def _attribute(self, node: ast.Attribute) -> tuple[Node, Any]:
        owner = dotted(node.value)
        if owner == "datetime.timezone" and node.attr == "utc":
            return Member(Ref(owner), "utc"), datetime.UTC
        if owner is None or node.attr not in self.known.members.get(owner, ()):
            raise refused(f"value {shown(node)} is not allowed")
        return Member(own(owner), node.attr), _EnumMember(f"{owner}.{node.attr}")

    def _call(self, node: ast.Call, depth: int) -> tuple[Node, Any]:
        name = dotted(node.func) or ""
        if name in self.known.flags:
            return self._flag(node, name)
        if name in self.known.buildable:
            return self._instance(node, name, depth)
        full = name if "." in name else f"builtins.{name}"
        if full not in CONSTRUCTORS:
            raise refused(f"value {shown(node)} calls what is not allowed")
        pairs = [self.read(item, depth) for item in node.args]
        words, given = self.keywords(node, CONSTRUCTORS[full], depth)
        value = _built(_CALLS[full], node, *(value for _, value in pairs), **given)
        return Bracket(Ref(full), "()", (*(tree for tree, _ in pairs), *words)), value

    def _flag(self, node: ast.Call, name: str) -> tuple[Node, Any]:
        match node:
            case ast.Call(args=[ast.Constant(value=int(number))], keywords=[]) if not number & ~self.known.flags[name]:
                return Bracket(own(name), "()", (Atom(repr(int(number))),)), _EnumMember(f"{name}({number})")
        raise refused(f"value {shown(node)} is no value of its flag")

    def _instance(self, node: ast.Call, name: str, depth: int) -> tuple[Node, Any]:
        fields, required = self.known.fields_of(name)
        words, given = self.keywords(node, fields, depth)
        if node.args or any(field not in given for field in required):
            raise refused(f"value {shown(node)} does not fit its class")
        return Bracket(own(name), "()", words), _Instance()


def _built(build: Callable[..., Any], node: ast.expr, *args: Any, **kwargs: Any) -> Any:
    try:
        return build(*args, **kwargs)
    except (TypeError, ValueError, ArithmeticError, AttributeError) as exc:
        raise refused(f"value {shown(node)} cannot be built") from exc


def _plain(node: ast.expr) -> tuple[Node, Any]:
    match node:
        case ast.Constant(value=str() | bytes() as text):
            return string(text), text
        case ast.Constant(value=None | bool() as value):
            return Atom(repr(value)), value
        case ast.Constant(value=int() | float() as number):
            return _number(node, number)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if not isinstance(number, bool):
            return _number(node, -number)
    raise refused(f"value {shown(node)} is not allowed")


def _number(node: ast.expr, number: float) -> tuple[Node, Any]:
    if isinstance(number, float) and not math.isfinite(number):
        raise refused(f"value {shown(node)} is too large a number")
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        raise refused("a whole number has too many digits")
    return Atom(repr(number).replace("e+", "e")), number  # as formatters write it
