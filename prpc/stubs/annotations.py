"""Annotations of a description: text -> tree, or DecodeError.

Let through are names of `known.KNOWN_TYPES`, of the description's own types and of the type parameters in scope,
subscripts of them with the right number of arguments, `|`, `None`, and literals inside `Literal` and `Annotated`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from prpc.stubs.grammar import Known, deeper, dotted, own, parse, refused, shown
from prpc.stubs.known import CONSTRAINTS, KNOWN_TYPES, VARIADIC
from prpc.stubs.tree import Atom, Bracket, Either, Node, Ref
from prpc.stubs.values import Values

__all__ = ["read_annotation"]


def read_annotation(text: object, known: Known) -> Node:
    """The tree of an annotation. Raises DecodeError for anything beyond the grammar."""
    return _Annotation(known).read(parse(text, "annotation"), 0)


@dataclass(frozen=True, slots=True)
class _Annotation:
    known: Known

    def read(self, node: ast.expr, depth: int) -> Node:
        depth = deeper(depth)
        match node:
            case ast.Constant(value=None):
                return Atom("None")
            case ast.Name() | ast.Attribute():
                return self._bare(node)
            case ast.BinOp(op=ast.BitOr()):
                return self._union(node, depth)
            case ast.Subscript():
                return self._subscript(node, depth)
        raise refused(f"annotation {shown(node)} is not allowed")

    def _bare(self, node: ast.expr) -> Node:
        name = dotted(node)
        if name in self.known.parameters:
            return Ref(str(name))
        reference, arity = self._type(node)
        if arity not in (0, None):
            raise refused(f"annotation {shown(node)} lacks its type arguments")
        return reference

    def _type(self, node: ast.expr) -> tuple[Ref, int | None]:
        name = dotted(node)
        if name is not None and name in self.known.arity:
            return own(name), self.known.arity[name]
        if name is not None and "." not in name:
            name = f"builtins.{name}"
        if name not in KNOWN_TYPES:
            raise refused(f"annotation {shown(node)} names a type that is not known")
        return Ref(str(name)), KNOWN_TYPES[str(name)]

    def _union(self, node: ast.expr, depth: int) -> Node:
        items: list[ast.expr] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            items.insert(0, node.right)
            node = node.left
        return Either(tuple(self.read(item, depth) for item in [node, *items]))

    def _subscript(self, node: ast.Subscript, depth: int) -> Node:
        arguments = _arguments(node)
        match dotted(node.value):
            case "typing.Literal":
                values = Values(self.known)
                return _of("typing.Literal", [values.literal(item) for item in arguments])
            case "typing.Annotated":
                extras = [self._extra(item, depth) for item in arguments[1:]]
                if not extras:
                    raise refused("Annotated has nothing to say")
                return _of("typing.Annotated", [self.read(arguments[0], depth), *extras])
            case "typing.Unpack":
                if len(arguments) != 1:
                    raise refused("Unpack takes one argument")
                return _of("typing.Unpack", [self.read(arguments[0], depth)])
            case "collections.abc.Callable":
                return self._callable(arguments, depth)
        reference, arity = self._type(node.value)
        if arity == VARIADIC:
            return Bracket(reference, "[]", self._tuple(node.slice, arguments, depth))
        if arity != len(arguments) or arity == 0:
            raise refused(f"annotation {shown(node)} has {len(arguments)} type arguments, not {arity}")
        return Bracket(reference, "[]", tuple(self.read(item, depth) for item in arguments))

    def _tuple(self, whole: ast.expr, arguments: Sequence[ast.expr], depth: int) -> tuple[Node, ...]:
        if isinstance(whole, ast.Tuple) and not whole.elts:
            return (Bracket(None, "()", ()),)
        match arguments:
            case [item, ast.Constant(value=value)] if value is ...:
                return (self.read(item, depth), Atom("..."))
        return tuple(self.read(item, depth) for item in arguments)

    def _callable(self, arguments: Sequence[ast.expr], depth: int) -> Node:
        match arguments:
            case [ast.Constant(value=value), returns] if value is ...:
                taken: Node = Atom("...")
            case [ast.List(elts=items), returns]:
                taken = Bracket(None, "[]", tuple(self.read(item, depth) for item in items))
            case _:
                raise refused("Callable takes a list of parameters and a result")
        return _of("collections.abc.Callable", [taken, self.read(returns, depth)])

    def _extra(self, node: ast.expr, depth: int) -> Node:
        values = Values(self.known)
        if not isinstance(node, ast.Call):
            return values.literal(node)
        name = dotted(node.func) or ""
        if name not in CONSTRAINTS or node.args:
            raise refused(f"Annotated carries {shown(node)}")
        return Bracket(Ref(name), "()", values.keywords(node, CONSTRAINTS[name], depth)[0])


def _arguments(node: ast.Subscript) -> list[ast.expr]:
    return node.slice.elts if isinstance(node.slice, ast.Tuple) and node.slice.elts else [node.slice]


def _of(name: str, items: Sequence[Node]) -> Bracket:
    return Bracket(Ref(name), "[]", tuple(items))
