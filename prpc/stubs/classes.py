"""Types of a generated file: `model.Definition` -> lines."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TypeAlias
from unicodedata import normalize

from prpc.stubs.fits import sure
from prpc.stubs.layout import Spell, comment, docstring, flat, guarded, lay_out, lay_out_default
from prpc.stubs.merging import Variable
from prpc.stubs.model import Definition, Field
from prpc.stubs.naming import Names
from prpc.stubs.tree import ANY, Atom, Bracket, Entry, Keyword, Node, Ref, string

__all__ = ["Writer"]

#: Lines of a type, and whether formatters would want them otherwise.
Lines: TypeAlias = tuple[list[str], bool]


class Writer:
    """Writes type variables and classes under the names that `names` gives."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def variable(self, variable: Variable) -> list[str]:
        """The line of one type variable."""
        parameter, name = variable.parameter, self.names.types[variable.target]
        words: list[Node] = [string(name), *(self._text(item) for item in parameter.constraints)]
        if parameter.bound is not None:
            words.append(Keyword("bound", self._text(parameter.bound)))
        if parameter.variance:
            words.append(Keyword(parameter.variance, Atom("True")))
        return guarded(lay_out(f"{name} = ", Bracket(Ref("typing.TypeVar"), "()", tuple(words)), "", 0, self.names.spell))

    def definition(self, definition: Definition) -> list[str]:
        """The lines of one type, with its notes above."""
        fields = {field.name for field in definition.fields} | {name for name, _ in definition.members}
        spell = partial(self.names.spell, shadowed=fields)
        lines, odd = _WRITERS[definition.kind](self, definition, spell)
        return guarded([*map(comment, definition.notes), *lines], odd=odd)

    def dataclass(self, definition: Definition, spell: Spell) -> Lines:
        decorator: Node = Ref("dataclasses.dataclass")
        if definition.options:
            decorator = Bracket(Ref("dataclasses.dataclass"), "()", definition.options)
        head = lay_out("@", decorator, "", 0, self.names.spell)
        fields = [line for field in definition.fields for line in _field("dataclasses.field", field, spell)]
        lines, odd = self._class(definition, definition.bases, fields)
        return [*head, *lines], odd

    def model(self, definition: Definition, spell: Spell) -> Lines:
        if definition.value is not None:
            root = Bracket(Ref("pydantic.RootModel"), "[]", (ANY,))  # a field can refer to what stands further down
            return self._class(definition, (root,), lay_out("root: ", definition.value, "", 4, spell))
        lines = [line for field in definition.fields for line in _field("pydantic.Field", field, spell)]
        if definition.options:
            config = Bracket(Ref("pydantic.ConfigDict"), "()", definition.options)
            lines = [*lay_out("model_config = ", config, "", 4, spell), *([""] if lines else []), *lines]
        return self._class(definition, definition.bases or (Ref("pydantic.BaseModel"),), lines)

    def enum(self, definition: Definition, spell: Spell) -> Lines:
        lines = [line for name, value in definition.members for line in lay_out(f"{name} = ", value, "", 4, spell)]
        return self._class(definition, definition.bases, lines)

    def namedtuple(self, definition: Definition, spell: Spell) -> Lines:
        lines = [line for field in definition.fields for line in _field("", field, spell)]
        return self._class(definition, (Ref("typing.NamedTuple"),), lines)

    def typeddict(self, definition: Definition, spell: Spell) -> Lines:
        items = [(field.name, _qualified(field)) for field in definition.fields]
        if all(_is_plain(key) for key, _ in items):
            lines = [line for key, node in items for line in lay_out(f"{key}: ", node, "", 4, spell)]
            return self._class(definition, (Ref("typing_extensions.TypedDict"),), lines)
        name = self.names.types[definition.name]
        entries = tuple(Entry(string(key), self._text(node)) for key, node in items)
        call = Bracket(Ref("typing_extensions.TypedDict"), "()", (string(name), Bracket(None, "{}", entries)))
        return lay_out(f"{name} = ", call, "", 0, self.names.spell), False

    def newtype(self, definition: Definition, spell: Spell) -> Lines:
        name, value = self.names.types[definition.name], definition.value or ANY
        return lay_out(f"{name} = ", Bracket(Ref("typing.NewType"), "()", (string(name), value)), "", 0, spell), False

    def alias(self, definition: Definition, spell: Spell) -> Lines:
        name, value = self.names.types[definition.name], definition.value or ANY
        words: list[Node] = [string(name), self._text(value)]
        if definition.parameters:
            variables = tuple(Ref(parameter.name) for parameter in definition.parameters)
            words.append(Keyword("type_params", Bracket(None, "()", variables)))
        call = Bracket(Ref("typing_extensions.TypeAliasType"), "()", tuple(words))
        return lay_out(f"{name} = ", call, "", 0, spell), False

    def _class(self, definition: Definition, bases: Sequence[Node], fields: Sequence[str]) -> Lines:
        name = self.names.types[definition.name]
        if definition.parameters:
            variables = tuple(Ref(parameter.name) for parameter in definition.parameters)
            bases = (*bases, Bracket(Ref("typing.Generic"), "[]", variables))
        text, odd = docstring(definition.doc, 4) if definition.doc.strip() else ([], False)
        head = f"class {name}:"
        if bases:
            head = f"class {name}({', '.join(flat(base, self.names.spell) for base in bases)}):"
        inside = [*text, *([""] if text and fields else []), *fields]
        disputed = any(line.startswith("    ] = ") for line in fields)  # ruff and black do not agree on it
        return [head, *(inside or ["    pass"])], odd or disputed

    def _text(self, node: Node) -> Node:
        """An annotation as a text, where Python would need it at once."""
        return string(flat(node, self.names.spell))


def _field(specifier: str, field: Field, spell: Spell) -> list[str]:
    default = None if field.default is None else sure(field.annotation, field.default)
    if default is None and field.factory is None and not field.arguments:
        return lay_out(f"{field.name}: ", field.annotation, "", 4, spell)
    if default is None or field.arguments:
        words = [] if default is None else [Keyword("default", default)]
        words += [] if field.factory is None else [Keyword("default_factory", field.factory)]
        default = Bracket(Ref(specifier), "()", (*words, *field.arguments))
    return lay_out_default(f"{field.name}: ", field.annotation, default, "", 4, spell)


def _qualified(field: Field) -> Node:
    node = field.annotation
    if field.readonly:
        node = Bracket(Ref("typing_extensions.ReadOnly"), "[]", (node,))
    return node if field.required else Bracket(Ref("typing_extensions.NotRequired"), "[]", (node,))


def _is_plain(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key) and not key.startswith("__") and normalize("NFKC", key) == key


_WRITERS: Mapping[str, Callable[[Writer, Definition, Spell], Lines]] = MappingProxyType(
    {
        "alias": Writer.alias,
        "dataclass": Writer.dataclass,
        "enum": Writer.enum,
        "model": Writer.model,
        "namedtuple": Writer.namedtuple,
        "newtype": Writer.newtype,
        "typeddict": Writer.typeddict,
    }
)
