"""The types of all functions as one list: the same type once, different types of one name apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from prpc.stubs.model import Definition, Field, Function, TypeParameter
from prpc.stubs.tree import Node, references, renamed

__all__ = ["Variable", "merge"]


@dataclass(frozen=True, slots=True)
class Variable:
    """A type variable of the file; generic classes with equal parameters share it."""

    target: str
    parameter: TypeParameter


@dataclass(frozen=True, slots=True)
class Merged:
    """What one file holds. Full names of its own types start with `type:`, of type variables with `var:`."""

    functions: tuple[Function, ...]
    definitions: tuple[Definition, ...]
    variables: tuple[Variable, ...]


def merge(functions: Iterable[Function]) -> Merged:
    """One list of types, each before its first use at import; the functions refer to it."""
    kept: dict[str, tuple[Definition, frozenset[Definition]]] = {}
    definitions: list[Definition] = []
    variables: dict[TypeParameter, Variable] = {}
    merged: list[Function] = []
    for function in functions:
        own = {definition.name: definition for definition in function.definitions}
        names = {name: _target(definition, _reachable(name, own), kept) for name, definition in own.items()}
        merged.append(_renamed_function(function, names))
        for name, definition in own.items():
            if names[name] not in {item.name for item in definitions}:
                definitions.append(_renamed_definition(definition, names, variables))
    return Merged(tuple(merged), tuple(definitions), tuple(variables.values()))


def _reachable(name: str, definitions: Mapping[str, Definition]) -> frozenset[Definition]:
    found: dict[str, Definition] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in definitions and current not in found:
            found[current] = definitions[current]
            waiting.extend(_mentions(definitions[current]))
    return frozenset(found.values())


def _target(
    definition: Definition, closure: frozenset[Definition], kept: dict[str, tuple[Definition, frozenset[Definition]]]
) -> str:
    number = 1
    while True:
        target = f"type:{definition.name}" + (f"#{number}" if number > 1 else "")
        if target not in kept:
            kept[target] = (definition, closure)
            return target
        if kept[target] == (definition, closure):
            return target
        number += 1


def _mentions(definition: Definition) -> Iterator[str]:
    for node in _nodes(definition):
        yield from references(node)


def _nodes(definition: Definition) -> Iterator[Node]:
    yield from definition.bases
    yield from (value for _, value in definition.members)
    for field in definition.fields:
        yield field.annotation
        yield from (field.default,) if field.default is not None else ()
    yield from (definition.value,) if definition.value is not None else ()
    for parameter in definition.parameters:
        yield from parameter.constraints
        yield from (parameter.bound,) if parameter.bound is not None else ()


def _renamed_function(function: Function, names: Mapping[str, str]) -> Function:
    parameters = tuple(
        replace(
            parameter,
            annotation=renamed(parameter.annotation, names),
            default=parameter.default and renamed(parameter.default, names),
        )
        for parameter in function.parameters
    )
    return replace(function, parameters=parameters, returns=renamed(function.returns, names))


def _renamed_definition(definition: Definition, names: Mapping[str, str], variables: dict[TypeParameter, Variable]) -> Definition:
    parameters = tuple(_renamed_parameter(parameter, names) for parameter in definition.parameters)
    names = dict(names)
    for parameter in parameters:
        variable = variables.setdefault(parameter, Variable(f"var:{parameter.name}#{len(variables)}", parameter))
        names[parameter.name] = variable.target
    return replace(
        definition,
        name=names[definition.name],
        parameters=tuple(replace(parameter, name=names[parameter.name]) for parameter in parameters),
        bases=tuple(renamed(base, names) for base in definition.bases),
        fields=tuple(_renamed_field(field, names) for field in definition.fields),
        members=tuple((name, renamed(value, names)) for name, value in definition.members),
        value=definition.value and renamed(definition.value, names),
    )


def _renamed_parameter(parameter: TypeParameter, names: Mapping[str, str]) -> TypeParameter:
    return replace(
        parameter,
        bound=parameter.bound and renamed(parameter.bound, names),
        constraints=tuple(renamed(item, names) for item in parameter.constraints),
    )


def _renamed_field(field: Field, names: Mapping[str, str]) -> Field:
    return replace(field, annotation=renamed(field.annotation, names), default=field.default and renamed(field.default, names))
