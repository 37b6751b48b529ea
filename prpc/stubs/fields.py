"""Fields of a description's classes, and the order in which the classes can stand in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from prpc.stubs.annotations import read_annotation
from prpc.stubs.forms import flag, items, mapping
from prpc.stubs.grammar import Known, read_identifier, refused
from prpc.stubs.known import FACTORIES, FIELD_ARGUMENTS
from prpc.stubs.model import Definition, Field
from prpc.stubs.tree import Atom, Bracket, Keyword, Node, Ref, references
from prpc.stubs.values import read_value

__all__ = ["in_order", "needed_first", "read_fields"]

MAX_FIELDS = 5_000
#: Calls whose result a dataclass does not take as a default.
UNHASHABLE = ("builtins.bytearray", "builtins.set")


def read_fields(item: Mapping[str, Any], known: Known) -> tuple[Field, ...]:
    """The fields of one class. Raises DecodeError where one is not in order."""
    kind = item["kind"]
    found = tuple(_field(kind, mapping(entry, "a field"), known) for entry in items(item.get("fields", []), "fields", MAX_FIELDS))
    if len({field.name for field in found}) != len(found):
        raise refused("two fields have one name")
    return found


def _field(kind: str, entry: Mapping[str, Any], known: Known) -> Field:
    name = _field_name(kind, entry.get("name"))
    annotation = entry.get("annotation")
    default, factory = entry.get("default"), entry.get("factory")
    if factory is not None and (factory not in FACTORIES or default is not None or kind not in ("dataclass", "model")):
        raise refused(f"field {name!r} has a default that is not known")
    value = None if default is None else read_value(default, known)
    if kind == "dataclass" and value is not None and _is_mutable(value):
        raise refused(f"field {name!r} has a default that can change")
    return Field(
        name=name,
        annotation=Ref("typing.Any") if annotation is None else read_annotation(annotation, known),
        default=value,
        factory=None if factory is None else Ref(factory if "." in factory else f"builtins.{factory}"),
        arguments=tuple(_arguments(kind, entry, known)),
        required=entry.get("required") is not False,
        readonly=flag(entry.get("readonly"), "readonly"),
    )


def _field_name(kind: str, name: object) -> str:
    if kind == "typeddict":
        if not isinstance(name, str) or len(name) > 1000:
            raise refused("a key is no text")
        return name
    found = read_identifier(name, "field")
    if found.startswith("__" if kind == "dataclass" else "_") or found == "model_config":
        raise refused(f"{found!r} is no name of a field")
    return found


def _is_mutable(value: Node) -> bool:
    if not isinstance(value, Bracket):
        return False
    return value.brackets != "()" if value.head is None else value.head.target in UNHASHABLE


def _arguments(kind: str, entry: Mapping[str, Any], known: Known) -> Iterator[Keyword]:
    if kind == "dataclass":
        if entry.get("init", True) is not True:
            yield Keyword("init", Atom("False"))
        if flag(entry.get("kw_only"), "kw_only"):
            yield Keyword("kw_only", Atom("True"))
    if kind != "model":
        return
    given = mapping(entry.get("arguments", {}), "arguments")
    if not given.keys() <= set(FIELD_ARGUMENTS):
        raise refused("a field has an argument that is not known")
    for key in FIELD_ARGUMENTS:
        if key in given:
            value = read_value(given[key], known)
            if not isinstance(value, Atom):
                raise refused(f"the argument {key} of a field is no literal")
            yield Keyword(key, value)


def needed_first(definition: Definition) -> Iterator[str]:
    """Full names of what has to stand before this type in a file; annotations can wait."""
    for base in definition.bases:
        yield from references(base)
    for _, value in definition.members:
        yield from references(value)
    for field in definition.fields:
        if field.default is not None:
            yield from references(field.default)
    if definition.kind == "newtype" and definition.value is not None:
        yield from references(definition.value)


def in_order(definitions: Mapping[str, Definition]) -> tuple[Definition, ...]:
    """What is needed first stands first; otherwise the order stays. Raises DecodeError for a circle."""
    done: dict[str, Definition] = {}
    for name in definitions:
        _place(name, definitions, done, [])
    return tuple(_settled(definition, done) for definition in done.values())


def _place(name: str, definitions: Mapping[str, Definition], done: dict[str, Definition], path: list[str]) -> None:
    if name in done or name not in definitions:
        return
    if name in path or len(path) > 100:
        raise refused(f"type {name[:80]!r} needs itself")
    for needed in needed_first(definitions[name]):
        _place(needed, definitions, done, [*path, name])
    done[name] = definitions[name]


def _settled(definition: Definition, done: Mapping[str, Definition]) -> Definition:
    """Where a default cannot be shown, what stands before it or after it has to change, or Python refuses the class."""
    if definition.kind == "namedtuple":
        return replace(definition, fields=tuple(_without_early_defaults(definition)))
    if definition.kind == "dataclass":
        return replace(definition, fields=tuple(_with_late_keywords(definition, done)))
    return definition


def _without_early_defaults(definition: Definition) -> Iterator[Field]:
    last_required = max((place for place, field in enumerate(definition.fields) if field.default is None), default=-1)
    for place, field in enumerate(definition.fields):
        yield field if place > last_required else replace(field, default=None)


def _with_late_keywords(definition: Definition, done: Mapping[str, Definition]) -> Iterator[Field]:
    optional = _ends_with_default(definition, done)
    for field in definition.fields:
        names = [word.name for word in field.arguments]
        if names:
            yield field
        elif field.default is not None or field.factory is not None:
            optional = True
            yield field
        else:
            yield replace(field, arguments=(Keyword("kw_only", Atom("True")),)) if optional else field


def _ends_with_default(definition: Definition, done: Mapping[str, Definition]) -> bool:
    for base in definition.bases:
        head = base.head if isinstance(base, Bracket) else base
        parent = done[head.target] if isinstance(head, Ref) else definition
        if any(not field.arguments and (field.default or field.factory) for field in parent.fields):
            return True
        return _ends_with_default(parent, done)
    return False
