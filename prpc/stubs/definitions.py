"""The types of a description: plain values -> `model.Definition`, or DecodeError."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from prpc.stubs.annotations import read_annotation
from prpc.stubs.fields import in_order, read_fields
from prpc.stubs.forms import items, mapping, notes, text
from prpc.stubs.grammar import Known, dotted, own, parse, read_identifier, refused
from prpc.stubs.known import DATACLASS_OPTIONS, ENUM_BASES, KNOWN_TYPES, MODEL_OPTIONS
from prpc.stubs.model import Definition, TypeParameter
from prpc.stubs.tree import Atom, Bracket, Keyword, Node, Ref, string
from prpc.stubs.values import Values

__all__ = ["read_definitions"]

MAX_TYPES = 5_000
MAX_MEMBERS = 20_000
MAX_BASES = 100
VARIANCES = ("", "covariant", "contravariant")
#: Known types that a NewType cannot be made of.
NOT_SUBCLASSABLE = frozenset({"typing.Any", "typing.Never", "typing.NoReturn", "builtins.bool", "builtins.range"})

Raw = Mapping[str, Any]


def read_definitions(described: object) -> tuple[tuple[Definition, ...], Known]:
    """The types of one function, and what its texts may say about them. Raises DecodeError naming the type."""
    raw = _by_name(items(described, "types", MAX_TYPES))
    known = _known(raw)
    definitions: dict[str, Definition] = {}
    for name, item in raw.items():
        try:
            definitions[own(name).target] = _KINDS[item["kind"]](_Raw(name, item, known, raw))
        except ValueError as exc:
            raise refused(f"type {name[:80]!r}: {exc}") from exc
    return in_order(definitions), known


def _by_name(described: Sequence[object]) -> dict[str, Raw]:
    raw: dict[str, Raw] = {}
    for item in described:
        item = mapping(item, "a type")
        name = item.get("name")
        if not isinstance(name, str) or name in raw or not 0 < len(name) <= 500 or "." not in name:
            raise refused(f"a type has no full name of its own: {str(name)[:80]!r}")
        if name in KNOWN_TYPES or dotted(parse(name, "type name")) != name:
            raise refused(f"{name[:80]!r} is no name of a type")
        for part in name.split("."):
            read_identifier(part, "part of a type's name")
        if not isinstance(item.get("kind"), str) or item["kind"] not in _KINDS:
            raise refused(f"type {name[:80]!r} is of the kind {str(item.get('kind'))[:40]!r}")
        raw[name] = item
    return raw


def _known(raw: Mapping[str, Raw]) -> Known:
    return Known(
        arity={name: len(items(item.get("type_params", []), "type_params", 50)) for name, item in raw.items()},
        members={name: _member_names(item) for name, item in raw.items() if item["kind"] == "enum"},
        flags={name: _mask(item) for name, item in raw.items() if item.get("base") in ("Flag", "IntFlag")},
        buildable=frozenset(name for name, item in raw.items() if item["kind"] in ("dataclass", "namedtuple")),
        fields_of=lambda name: _buildable(name, raw),
    )


def _member_names(item: Raw) -> frozenset[str]:
    members = [mapping(member, "a member") for member in items(item.get("members", []), "members", MAX_MEMBERS)]
    return frozenset(str(member.get("name")) for member in members)


def _mask(item: Raw) -> int:
    mask = 0
    for member in items(item.get("members", []), "members", MAX_MEMBERS):
        value = mapping(member, "a member").get("value")
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 30:
            mask |= int(value)
    return mask


def _buildable(name: str, raw: Mapping[str, Raw]) -> tuple[frozenset[str], frozenset[str]]:
    """Fields that the class takes when it is built, and those of them that it must be given."""
    fields: dict[str, bool] = {}
    chain: list[str] = []
    current: str | None = name
    while current is not None and current in raw and current not in chain:
        if len(chain) > MAX_BASES:
            raise refused(f"more than {MAX_BASES} classes stand above {name[:80]!r}")
        chain.append(current)
        current = _base_name(raw[current])
    for item in (raw[part] for part in reversed(chain)):
        for entry in items(item.get("fields", []), "fields", MAX_MEMBERS):
            entry = mapping(entry, "a field")
            key = str(entry.get("name"))
            fields.pop(key, None)
            if entry.get("init", True):
                fields[key] = "default" not in entry and "factory" not in entry
    return frozenset(fields), frozenset(key for key, required in fields.items() if required)


def _base_name(item: Raw) -> str | None:
    base = item.get("base")
    return base.partition("[")[0] if isinstance(base, str) else None


@dataclass(frozen=True, slots=True)
class _Raw:
    """One type as it arrived, with what its texts may say."""

    name: str
    item: Raw
    types: Known
    #: All types of the description, by name.
    others: Mapping[str, Raw]

    @property
    def known(self) -> Known:
        return replace(self.types, parameters=frozenset(parameter.name for parameter in self.parameters()))

    def parameters(self) -> tuple[TypeParameter, ...]:
        described = [mapping(entry, "a type parameter") for entry in items(self.item.get("type_params", []), "type_params", 50)]
        found = tuple(self._parameter(entry) for entry in described)
        if len({parameter.name for parameter in found}) != len(found):
            raise refused("two type parameters have one name")
        return found

    def _parameter(self, entry: Raw) -> TypeParameter:
        variance = entry.get("variance", "")
        constraints = items(entry.get("constraints", []), "constraints", 100)
        if variance not in VARIANCES or len(constraints) == 1:
            raise refused("a type parameter is not in order")
        bound = entry.get("bound")
        return TypeParameter(
            name=read_identifier(entry.get("name"), "type parameter"),
            bound=None if bound is None or constraints else read_annotation(bound, self.types),
            constraints=tuple(read_annotation(part, self.types) for part in constraints),
            variance=variance,
        )

    def definition(self, **more: Any) -> Definition:
        return Definition(
            name=own(self.name).target,
            kind=self.item["kind"],
            doc=text(self.item.get("doc"), "doc"),
            parameters=self.parameters(),
            notes=notes(self.item.get("notes")),
            **more,
        )

    def base(self) -> tuple[Node, ...]:
        """The base class that is defined here too."""
        if self.item.get("base") is None:
            return ()
        node = read_annotation(self.item["base"], self.known)
        head = node.head if isinstance(node, Bracket) else node
        above = self.others.get(head.target.removeprefix("type:")) if isinstance(head, Ref) else None
        if above is None or above is self.item or not isinstance(head, Ref) or not head.target.startswith("type:"):
            raise refused("its base is no class of this description")
        # A dataclass makes code of its fields' names: those of a TypedDict could be any text.
        if above["kind"] != self.item["kind"] or above.get("root") is not None or _is_frozen(above) != _is_frozen(self.item):
            raise refused("its base is a class of another kind")
        return (node,)


def _is_frozen(item: Raw) -> bool:
    options = item.get("options")
    return isinstance(options, dict) and options.get("frozen") is True


def _dataclass(raw: _Raw) -> Definition:
    options = mapping(raw.item.get("options", {}), "options")
    if not options.keys() <= set(DATACLASS_OPTIONS) or not all(isinstance(value, bool) for value in options.values()):
        raise refused("it has an option that is not known")
    if options.get("order") and options.get("eq") is False:
        raise refused("it has an order without equality")
    words = tuple(Keyword(key, Atom(repr(options[key]))) for key in DATACLASS_OPTIONS if key in options)
    return raw.definition(bases=raw.base(), options=words, fields=read_fields(raw.item, raw.known))


def _namedtuple(raw: _Raw) -> Definition:
    return raw.definition(fields=read_fields(raw.item, raw.known))


def _model(raw: _Raw) -> Definition:
    root = raw.item.get("root")
    if root is not None:
        return raw.definition(value=read_annotation(root, raw.known))
    config = mapping(raw.item.get("config", {}), "config")
    options = tuple(Keyword(key, _setting(key, config[key])) for key in MODEL_OPTIONS if key in config)
    if len(options) != len(config):
        raise refused("it has a setting that is not known")
    return raw.definition(bases=raw.base(), options=options, fields=read_fields(raw.item, raw.known))


def _setting(key: str, value: object) -> Node:
    allowed: Sequence[object] = MODEL_OPTIONS[key]
    if not any(value is option or (isinstance(value, str) and value == option) for option in allowed):
        raise refused(f"its setting {key} cannot be {str(value)[:40]!r}")
    return string(value) if isinstance(value, str) else Atom(repr(value))


def _enum(raw: _Raw) -> Definition:
    base = raw.item.get("base")
    if not isinstance(base, str) or base not in ENUM_BASES:
        raise refused(f"it is an enum of {str(base)[:40]!r}")
    values = Values(raw.known)
    members: dict[str, Node] = {}
    for entry in items(raw.item.get("members", []), "members", MAX_MEMBERS):
        entry = mapping(entry, "a member")
        name = read_identifier(entry.get("name"), "member")
        if name in members or name == "mro" or name.startswith("__") or (name.startswith("_") and name.endswith("_")):
            raise refused(f"{name!r} is no name of a member")
        members[name], value = values.read(parse(entry.get("value"), "value"), 0)
        if not _ENUM_VALUES[base](value):
            raise refused(f"the value of {name!r} does not fit an enum of {base}")
    return raw.definition(bases=tuple(Ref(part) for part in ENUM_BASES[base]), members=tuple(members.items()))


_ENUM_VALUES: Mapping[str, Callable[[object], bool]] = MappingProxyType(
    {
        "Enum": lambda value: True,
        "IntEnum": lambda value: type(value) is int,
        "int": lambda value: type(value) is int,
        "StrEnum": lambda value: type(value) is str,
        "str": lambda value: type(value) is str,
        "float": lambda value: type(value) is float,
        "Flag": lambda value: type(value) is int and 0 <= value < 1 << 64,
        "IntFlag": lambda value: type(value) is int and 0 <= value < 1 << 64,
    }
)


def _typeddict(raw: _Raw) -> Definition:
    return raw.definition(fields=read_fields(raw.item, raw.known))


def _newtype(raw: _Raw) -> Definition:
    node = read_annotation(raw.item.get("value"), raw.types)
    head = node.head if isinstance(node, Bracket) else node
    if not isinstance(head, Ref) or head.target.startswith("typing.") or head.target in NOT_SUBCLASSABLE:
        raise refused("a NewType of this cannot be made")
    return raw.definition(value=node)


def _alias(raw: _Raw) -> Definition:
    return raw.definition(value=read_annotation(raw.item.get("value"), raw.known))


_KINDS: Mapping[str, Callable[[_Raw], Definition]] = MappingProxyType(
    {
        "alias": _alias,
        "dataclass": _dataclass,
        "enum": _enum,
        "model": _model,
        "namedtuple": _namedtuple,
        "newtype": _newtype,
        "typeddict": _typeddict,
    }
)
