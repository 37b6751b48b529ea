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
    """What one file holds. Full names of type variables start with `var:`."""

    functions: tuple[Function, ...]
    definitions: tuple[Definition, ...]
    variables: tuple[Variable, ...]


def merge(functions: Iterable[Function]) -> Merged:
    """One list of types, each before its first use at import; the functions refer to it."""
    functions = tuple(functions)
    targets = _Targets(functions)
    definitions: dict[str, Definition] = {}
    variables: dict[TypeParameter, Variable] = {}
    merged: list[Function] = []
    for function in functions:
        names = targets.of(function)
        merged.append(_renamed_function(function, names))
        for definition in function.definitions:
            if names[definition.name] not in definitions:
                definitions[names[definition.name]] = _renamed_definition(definition, names, variables)
    return Merged(tuple(merged), tuple(definitions.values()), tuple(variables.values()))


class _Targets:
    """Which type of a function is which type of the file.

    Two types are the same when they and all that they mention are equal. That is looked at only where two functions
    have different types of one name, as when a name means one class here and another there.
    """

    def __init__(self, functions: Iterable[Function]) -> None:
        self._numbers: dict[Definition, int] = {}
        found: dict[str, set[int]] = {}
        for function in functions:
            for definition in function.definitions:
                found.setdefault(definition.name, set()).add(self._number(definition))
        self._simple = all(len(numbers) == 1 for numbers in found.values())
        self._kept: dict[str, frozenset[int]] = {}

    def _number(self, definition: Definition) -> int:
        return self._numbers.setdefault(definition, len(self._numbers))

    def of(self, function: Function) -> dict[str, str]:
        """Full name in the function -> full name in the file."""
        if self._simple:
            return {definition.name: definition.name for definition in function.definitions}
        own = {definition.name: definition for definition in function.definitions}
        numbers = {name: self._number(definition) for name, definition in own.items()}
        mentions = {name: set(_mentions(definition)) & own.keys() for name, definition in own.items()}
        return {name: self._target(name, _reachable(name, mentions, numbers)) for name in own}

    def _target(self, name: str, closure: frozenset[int]) -> str:
        number, target = 1, name
        while self._kept.setdefault(target, closure) != closure:
            number += 1
            target = f"{name}#{number}"
        return target


def _reachable(name: str, mentions: Mapping[str, set[str]], numbers: Mapping[str, int]) -> frozenset[int]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(mentions[current])
    return frozenset(numbers[item] for item in found)


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
