"""A description that was read and found in order: what the writer works from."""

from __future__ import annotations

from dataclasses import dataclass

from prpc.stubs.tree import Keyword, Node, Ref

__all__ = ["Definition", "Field", "Function", "Parameter", "TypeParameter"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function."""

    name: str
    #: Name of the kind, as `inspect` has it: POSITIONAL_ONLY, POSITIONAL_OR_KEYWORD, VAR_POSITIONAL, ...
    kind: str
    annotation: Node
    #: None where there is none, or none that can be shown.
    default: Node | None
    #: There is a default, but only the server can show it.
    hidden: bool


@dataclass(frozen=True, slots=True)
class TypeParameter:
    """A type parameter of a generic class or alias."""

    name: str
    bound: Node | None = None
    constraints: tuple[Node, ...] = ()
    variance: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a class: of a dataclass, a pydantic model, a NamedTuple or a TypedDict."""

    name: str
    annotation: Node
    default: Node | None = None
    #: A type that is called for the default, e.g. `list`.
    factory: Ref | None = None
    #: Arguments of `dataclasses.field` or `pydantic.Field`, beside the default.
    arguments: tuple[Keyword, ...] = ()
    required: bool = True
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """One type that comes along with the functions that use it."""

    #: Full name on the server.
    name: str
    #: dataclass, model, enum, namedtuple, typeddict, newtype or alias.
    kind: str
    doc: str = ""
    parameters: tuple[TypeParameter, ...] = ()
    #: Base class that is defined here too (dataclass, model), or the bases of an enum.
    bases: tuple[Node, ...] = ()
    #: Arguments of the decorator `dataclass`, or a model's settings.
    options: tuple[Keyword, ...] = ()
    fields: tuple[Field, ...] = ()
    #: Members of an enum.
    members: tuple[tuple[str, Node], ...] = ()
    #: What a NewType or an alias stands for; the root of a root model.
    value: Node | None = None
    #: Texts for a reader: what is shown as Any, and why.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the server."""

    name: str
    parameters: tuple[Parameter, ...]
    returns: Node
    doc: str
    idempotent: bool
    broadcast: bool
    schema: str
    #: Whether it streams items of the type `returns`.
    streams: bool
    definitions: tuple[Definition, ...]
    notes: tuple[str, ...]
