"""Tree to values: jsonpickle's dialect by a closed table.

Nothing here imports, looks up or calls by a name from the text: a name is compared with the few that are known, and the
class of any other object is left alone (its fields are read as a dict). Whatever is not listed is refused.
References (`py/id`) are numbered just as jsonpickle numbers what it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any, ClassVar

from prpc.codec.limits import Limits
from prpc.codec.passive import CALLABLES, OBJECTS, b64, check_hashes
from prpc.codec.stamps import UTC_TREE
from prpc.codec.text import parse
from prpc.exceptions import DecodeError

__all__ = ["Restorer", "refuse"]

_SCALARS = frozenset({str, int, float, bool, type(None)})
#: Keys of an object that say how to build it; its fields are the others.
_OBJECT_TAGS = frozenset({"py/object", "py/newargs", "py/newargsex", "py/seq", "py/state"})
_KEY = "json://"
_SUSPECT = frozenset({"p", "j"})


def refuse(text: str, reason: str = "tag") -> DecodeError:
    """The error for a text that is not accepted."""
    return DecodeError(text, reason=reason)


class _Reference:
    """One numbered value: what it is, and what referring to it again costs."""

    __slots__ = ("height", "items", "ready", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.ready = False
        self.items = 0
        self.height = 0


class Restorer:
    """Restores the values of one text. Every method raises DecodeError for what is not accepted."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._references: list[_Reference] = []
        self._items = 0
        self._deepest = 0

    def restore(self, node: Any, depth: int = 0) -> Any:
        """The value of one node that stands so many containers deep."""
        kind = type(node)
        if kind is list:
            return self._list(node, depth)
        if kind is dict:
            return self._dict(node, depth)
        return node

    # Bookkeeping

    def begin(self) -> _Reference:
        """Number a value that is about to be restored."""
        reference = _Reference()
        reference.items, reference.height = self._items, self._deepest
        self._references.append(reference)
        return reference

    def end(self, reference: _Reference, value: Any, depth: int) -> Any:
        """Its value is known; from now on it can be referred to."""
        reference.value, reference.ready = value, True
        reference.items = self._items - reference.items
        reference.height, self._deepest = self._deepest - depth, max(reference.height, self._deepest)
        return value

    def _enter(self, size: int, depth: int) -> None:
        self._reach(depth)
        self._count(size)

    def _count(self, size: int) -> None:
        self._items += size
        if self._items > self._limits.max_items:
            raise refuse(f"the values have more than {self._limits.max_items} items", "items")

    def _reach(self, depth: int) -> None:
        if depth >= self._limits.max_depth:
            raise refuse(f"the values are nested deeper than {self._limits.max_depth} levels", "depth")
        self._deepest = max(self._deepest, depth)

    # Containers

    def _members(self, nodes: list[Any], depth: int) -> list[Any]:
        self._enter(len(nodes), depth)
        if _SCALARS.issuperset(map(type, nodes)):
            return nodes
        restore = self.restore
        return [restore(node, depth + 1) for node in nodes]

    def _list(self, node: list[Any], depth: int) -> list[Any]:
        reference = self._fresh(depth)
        return self.end(reference, self._members(node, depth), depth)  # type: ignore[no-any-return]

    def _fresh(self, depth: int) -> _Reference:
        reference = self.begin()
        self._deepest = depth - 1  # until a container is met; a date or an id has no depth of its own
        return reference

    def _dict(self, node: dict[str, Any], depth: int) -> Any:
        if "py/object" in node:
            return self._object(node, depth)
        if len(node) == 1:
            (key,) = node
            special = self._single.get(key)
            if special is not None:
                return special(self, node[key], depth)
        reference = self._fresh(depth)
        self._enter(len(node), depth)
        return self.end(reference, self._mapping(node, depth + 1), depth)

    def _mapping(self, node: dict[str, Any], depth: int) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        escaped = False
        for key, member in node.items():
            if key[:1] in _SUSPECT and key.startswith((_KEY, "py/")):
                if not key.startswith(_KEY):
                    raise refuse(f"the tag {key[:40]!r} is not accepted here")
                escaped = True
            else:
                result[key] = member if type(member) in _SCALARS else self.restore(member, depth)
        return self._with_escaped(node, result, depth) if escaped else result

    def _with_escaped(self, node: dict[str, Any], plain: dict[str, Any], depth: int) -> dict[Any, Any]:
        """All members in their order; jsonpickle numbers those of escaped keys after all others."""
        named = {key: self._keyed(key, member, depth) for key, member in node.items() if key not in plain}
        pairs = [named[key] if key in named else (key, plain[key]) for key in node]
        try:
            check_hashes([name for name, _ in pairs])
            result = dict(pairs)
        except TypeError:
            raise refuse("a key that cannot be one", "form") from None
        if len(result) != len(pairs):
            raise refuse("a key stands twice in one object", "json")
        return result

    def _keyed(self, key: str, member: Any, depth: int) -> tuple[Any, Any]:
        tree, _ = parse(key[len(_KEY) :].encode("utf-8", "surrogatepass"))
        return self.restore(tree, depth), self.restore(member, depth)

    # Tags that stand alone

    def _tuple(self, node: Any, depth: int) -> tuple[Any, ...]:
        return tuple(self._members(_as_list(node, "py/tuple"), depth))

    def _set(self, node: Any, depth: int) -> set[Any]:
        try:
            members = self._members(_as_list(node, "py/set"), depth)
            check_hashes(members)
            return set(members)
        except TypeError:
            raise refuse("a member of a set that cannot be one", "form") from None

    def _bytes(self, node: Any, depth: int) -> bytes:
        return b64(node)

    def _reference(self, node: Any, depth: int) -> Any:
        if type(node) is not int or not 0 <= node < len(self._references):
            raise refuse("py/id refers to nothing", "form")
        reference = self._references[node]
        if not reference.ready:
            raise refuse("py/id refers to a value from inside itself", "form")
        self._count(reference.items)
        if reference.height >= 0:
            self._reach(depth + reference.height)
        return reference.value

    def _reduce(self, node: Any, depth: int) -> Any:
        parts = _as_list(node, "py/reduce")
        if not 2 <= len(parts) <= 5:
            raise refuse("py/reduce has two to five parts", "form")
        build = CALLABLES.get(_callable_name(parts[0]))
        if build is None:
            raise refuse("py/reduce names something that is not accepted")
        reference = self._fresh(depth)
        arguments = self._arguments(parts[1], depth)
        rest = [self.restore(part, depth) for part in parts[2:]]
        return self.end(reference, build(arguments, rest), depth)

    def _arguments(self, node: Any, depth: int) -> list[Any]:
        if type(node) is not dict or node.keys() != {"py/tuple"}:
            raise refuse("arguments stand in a py/tuple", "form")
        nodes = _as_list(node["py/tuple"], "py/tuple")
        self._count(len(nodes))
        return [self.restore(argument, depth) for argument in nodes]

    # Objects

    def _object(self, node: dict[str, Any], depth: int) -> Any:
        name = node["py/object"]
        if type(name) is not str:
            raise refuse("py/object names no class", "form")
        reference = self._fresh(depth)
        self._count(len(node))
        build = OBJECTS.get(name)
        if build is not None:
            return self.end(reference, build(self, node, depth), depth)
        self._reach(depth)
        return self.end(reference, self._foreign(node, depth), depth)

    def _foreign(self, node: dict[str, Any], depth: int) -> Any:
        """An object of a class that is not ours to know: its members if it is a tuple or a list, else its fields."""
        unknown = [key for key in node if key.startswith("py/") and key not in _OBJECT_TAGS]
        if unknown:
            raise refuse(f"the tag {unknown[0][:40]!r} is not accepted in an object")
        arguments: list[Any] = []
        if "py/newargs" in node:
            arguments = self._arguments(node["py/newargs"], depth)
        if "py/newargsex" in node:
            raise refuse("an object with arguments by keyword is not accepted")
        fields = {key: value for key, value in node.items() if key not in _OBJECT_TAGS}
        result = self._mapping(fields, depth + 1)
        result.pop("__dict__", None)
        if "py/seq" in node:
            members = self._members(_as_list(node["py/seq"], "py/seq"), depth)
            return tuple(members) if arguments and arguments == members else members
        if "py/state" in node:
            _merge_state(result, self.restore(node["py/state"], depth))
        elif not fields and len(arguments) == 1 and type(arguments[0]) in _SCALARS:
            return arguments[0]  # a subclass of str, int or float
        return result

    def object_argument(self, node: Any, depth: int) -> Any:
        """One part of an object of the closed table."""
        if node == UTC_TREE:
            # The zone of nearly every date, whole: zone and offset have a number each.
            for value in (UTC, timedelta(0)):
                self.end(self._fresh(depth), value, depth)
            return UTC
        return self.restore(node, depth)

    def object_arguments(self, node: Any, depth: int) -> list[Any]:
        """The arguments of an object of the closed table."""
        return self._arguments(node, depth)

    def object_fields(self, node: dict[str, Any], depth: int) -> dict[Any, Any]:
        """The fields of an object of the closed table."""
        return self._mapping(node, depth + 1)

    _single: ClassVar[dict[str, Callable[[Restorer, Any, int], Any]]] = {
        "py/tuple": _tuple,
        "py/set": _set,
        "py/b64": _bytes,
        "py/id": _reference,
        "py/reduce": _reduce,
    }


def _as_list(node: Any, tag: str) -> list[Any]:
    if type(node) is not list:
        raise refuse(f"{tag} holds no list", "form")
    return node


def _callable_name(node: Any) -> str:
    """What a py/reduce wants to call, as text to compare."""
    if type(node) is dict and len(node) == 1:
        ((tag, name),) = node.items()
        if type(name) is str and tag in ("py/type", "py/function"):
            return f"{tag} {name}"
    return ""


def _merge_state(fields: dict[Any, Any], state: Any) -> None:
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    for part in parts:
        if type(part) is dict:
            fields.update(part)
        elif part is not None:
            raise refuse("the state of an object is no set of fields", "form")
