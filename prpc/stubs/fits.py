"""Whether a default surely fits its annotation in a type-checker's eyes. Where that is not sure, the stub writes a cast."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from prpc.stubs.tree import ANY, Atom, Bracket, Either, Entry, Member, Node, Ref

__all__ = ["fits", "sure"]

_ITERABLE = frozenset({"Iterable", "Collection", "Container", "Reversible", "Sequence"})

#: Display or constructor -> the types, without `builtins.` and `collections.abc.`, that take it item by item.
_HOLDERS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "[]": frozenset({"list", "MutableSequence"}) | _ITERABLE,
        "()": _ITERABLE,
        "set": (frozenset({"set", "Set", "MutableSet"}) | _ITERABLE) - {"Sequence", "Reversible"},
        "frozenset": (frozenset({"frozenset", "Set"}) | _ITERABLE) - {"Sequence", "Reversible"},
        "{}": frozenset({"dict", "Mapping", "MutableMapping"}),
    }
)

_WIDER: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "bool": frozenset({"bool", "int", "float", "complex"}),
        "int": frozenset({"int", "float", "complex"}),
        "float": frozenset({"float", "complex"}),
        "str": frozenset({"str"}),
        "bytes": frozenset({"bytes"}),
        "datetime.datetime": frozenset({"datetime.date"}),
        "pathlib.Path": frozenset({"pathlib.PurePath"}),
        "pathlib.PurePosixPath": frozenset({"pathlib.PurePath"}),
        "pathlib.PureWindowsPath": frozenset({"pathlib.PurePath"}),
        "datetime.timezone": frozenset({"datetime.tzinfo"}),
    }
)


def fits(annotation: Node, value: Node) -> bool:
    """True where mypy and pyright accept the value; False also means "not sure"."""
    match annotation:
        case Ref("typing.Any" | "builtins.object"):
            return True
        case Either(items):
            return any(fits(item, value) for item in items)
        case Bracket(Ref("typing.Annotated"), _, items):
            return fits(items[0], value)
        case Bracket(Ref("typing.Literal"), _, items):
            return value in items
        case Atom("None"):
            return value == annotation
        case Bracket(Ref(target), "[]", items):
            return _fits_generic(_short(target), items, value)
        case Ref(target):
            return _fits_plain(target, value)
    return False


def sure(annotation: Node, value: Node) -> Node:
    """The value, in a cast where it is not sure that a type-checker accepts it."""
    return value if fits(annotation, value) else Bracket(Ref("typing.cast"), "()", (ANY, value))


def _short(target: str) -> str:
    return target.removeprefix("builtins.").removeprefix("collections.abc.")


def _fits_plain(target: str, value: Node) -> bool:
    match value:
        case Atom(text):
            return _short(target) in _WIDER.get(_kind(text), ())
        case Member(Ref(owner), _):
            return owner == target or target in _WIDER.get(owner, ())
        case Bracket(Ref(head), "()", _):
            return head == target or target in _WIDER.get(head, ()) or _short(target) in _WIDER.get(_short(head), ())
    return False


def _kind(text: str) -> str:
    if text in ("True", "False"):
        return "bool"
    if text[0] in "\"'":
        return "str"
    if text.startswith("b"):
        return "bytes"
    if text == "None":
        return "None"
    return "float" if any(mark in text for mark in ".e") else "int"


def _fits_generic(target: str, items: tuple[Node, ...], value: Node) -> bool:
    if not isinstance(value, Bracket):
        return False
    if value.head is not None:
        return _fits_call(target, items, value)
    if target == "tuple" and value.brackets == "()":
        return _fits_tuple(items, value.items)
    kind = "set" if value.brackets == "{}" and not _is_dict(value) else value.brackets
    if target not in _HOLDERS[kind]:
        return False
    if kind == "{}":
        return all(isinstance(item, Entry) and fits(items[0], item.key) and fits(items[1], item.value) for item in value.items)
    return all(fits(items[0], item) for item in value.items)


def _is_dict(value: Bracket) -> bool:
    return not value.items or isinstance(value.items[0], Entry)


def _fits_call(target: str, items: tuple[Node, ...], value: Bracket) -> bool:
    head = _short(value.head.target) if value.head else ""
    if head not in ("set", "frozenset") or target not in _HOLDERS[head]:
        return False
    match value.items:
        case ():
            return True
        case (Bracket(None, _, inner),):
            return all(fits(items[0], item) for item in inner)
    return False


def _fits_tuple(annotations: tuple[Node, ...], values: tuple[Node, ...]) -> bool:
    match annotations:
        case (item, Atom("...")):
            return all(fits(item, value) for value in values)
        case (Bracket(None, "()", ()),):
            return not values
    return len(annotations) == len(values) and all(map(fits, annotations, values))
