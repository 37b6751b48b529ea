"""Source text as a small tree: what the closed grammar lets through, and all that the writer can write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["ANY", "Atom", "Bracket", "Either", "Entry", "Keyword", "Member", "Node", "Ref", "references", "renamed", "string"]


@dataclass(frozen=True, slots=True)
class Atom:
    """A literal, written as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Ref:
    """A known type (`datetime.date`), or a type that the file itself defines; its name in the file is decided later."""

    target: str


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an enum."""

    owner: Ref
    name: str


@dataclass(frozen=True, slots=True)
class Bracket:
    """`head[...]`, `head(...)` or, without a head, a list, tuple, dict or set. `brackets` is one of `[]`, `()`, `{}`."""

    head: Ref | None
    brackets: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Keyword:
    """`name=value` in a call."""

    name: str
    value: Node


@dataclass(frozen=True, slots=True)
class Entry:
    """`key: value` in a dict."""

    key: Node
    value: Node


@dataclass(frozen=True, slots=True)
class Either:
    """`A | B`."""

    items: tuple[Node, ...]


Node: TypeAlias = Atom | Ref | Member | Bracket | Keyword | Entry | Either

ANY = Ref("typing.Any")


def string(text: str | bytes) -> Atom:
    """A literal of one line, with the quotes that formatters choose; nothing in it can end it."""
    prefix = "b" if isinstance(text, bytes) else ""
    units = [chr(unit) for unit in text] if isinstance(text, bytes) else list(text)
    quote = '"' if units.count('"') <= units.count("'") else "'"
    return Atom(prefix + quote + "".join(_escaped(unit, quote, ascii_only=bool(prefix)) for unit in units) + quote)


def _escaped(unit: str, quote: str, *, ascii_only: bool) -> str:
    if unit in ("\\", quote):
        return "\\" + unit
    if unit in "\"'":
        return unit
    return (ascii(unit) if ascii_only else repr(unit))[1:-1]


def references(node: Node) -> Iterator[str]:
    """Every full name that the tree refers to."""
    match node:
        case Ref(target):
            yield target
        case Member(owner, _):
            yield owner.target
        case Bracket(head, _, items):
            if head is not None:
                yield head.target
            for item in items:
                yield from references(item)
        case Keyword(_, value):
            yield from references(value)
        case Entry(key, value):
            yield from references(key)
            yield from references(value)
        case Either(items):
            for item in items:
                yield from references(item)
        case Atom():
            pass


def renamed(node: Node, names: Mapping[str, str]) -> Node:
    """The same tree with other full names."""
    match node:
        case Ref(target):
            return Ref(names.get(target, target))
        case Member(Ref(target), name):
            return Member(Ref(names.get(target, target)), name)
        case Bracket(head, brackets, items):
            inner = tuple(renamed(item, names) for item in items)
            return Bracket(head and Ref(names.get(head.target, head.target)), brackets, inner)
        case Keyword(name, value):
            return Keyword(name, renamed(value, names))
        case Entry(key, value):
            return Entry(renamed(key, names), renamed(value, names))
        case Either(items):
            return Either(tuple(renamed(item, names) for item in items))
        case Atom():
            return node
