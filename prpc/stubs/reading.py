"""A description as it arrived -> `model.Function`, or DecodeError that names the function.

Descriptions of older servers (func_args and func_kwargs only) are read too; an annotation of theirs that is not
understood is shown as Any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prpc.exceptions import DecodeError
from prpc.stubs.annotations import read_annotation
from prpc.stubs.definitions import read_definitions
from prpc.stubs.forms import flag, items, mapping, notes, text
from prpc.stubs.grammar import Known, read_identifier, refused
from prpc.stubs.model import Function, Parameter
from prpc.stubs.schema import function_schema
from prpc.stubs.tree import ANY, Node
from prpc.stubs.values import read_value

__all__ = ["read_functions"]

MAX_FUNCTIONS = 10_000
MAX_PARAMETERS = 2_000
#: Kinds in the order in which Python wants them.
KINDS = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL", "KEYWORD_ONLY", "VAR_KEYWORD")


def read_functions(descriptions: object) -> tuple[Function, ...]:
    """Every function of the server. Raises DecodeError where one of them is not in order, or two have one name."""
    functions: dict[str, Function] = {}
    for description in items(descriptions, "the server's answer", MAX_FUNCTIONS):
        name = _name(description)
        try:
            function = _function(name, mapping(description, "a description"))
            if name in functions:
                raise refused("there are two of this name")
        except DecodeError as exc:
            raise DecodeError(f"the server's description of {name!r} is refused: {exc}", reason="form") from exc
        functions[name] = function
    return tuple(functions.values())


def _name(description: object) -> str:
    name = mapping(description, "the description of a function").get("func_name")
    if not isinstance(name, str) or not 0 < len(name) <= 500:
        raise refused(f"the server describes a function without a name: {str(name)[:80]!r}")
    return name


def _function(name: str, description: Mapping[str, Any]) -> Function:
    definitions, known = read_definitions(description.get("types", []))
    if "parameters" in description:
        parameters = _parameters(items(description["parameters"], "parameters", MAX_PARAMETERS), known)
    else:
        parameters = _old_parameters(description)
    returns = description.get("returns")
    return Function(
        name=name,
        parameters=parameters,
        returns=ANY if returns is None else read_annotation(returns, known),
        doc=text(description.get("doc"), "doc"),
        idempotent=flag(description.get("idempotent"), "idempotent"),
        broadcast=flag(description.get("broadcast"), "broadcast"),
        schema=function_schema(description),
        streams=flag(description.get("streams"), "streams"),
        definitions=definitions,
        notes=notes(description.get("notes")),
    )


def _parameters(described: Sequence[object], known: Known) -> tuple[Parameter, ...]:
    parameters = tuple(_parameter(mapping(item, "a parameter"), known) for item in described)
    _check_order(parameters)
    return parameters


def _parameter(item: Mapping[str, Any], known: Known) -> Parameter:
    kind = item.get("kind")
    if kind not in KINDS:
        raise refused(f"a parameter is of the kind {str(kind)[:40]!r}")
    annotation, default = item.get("annotation"), item.get("default")
    return Parameter(
        name=read_identifier(item.get("name"), "parameter"),
        kind=kind,
        annotation=ANY if annotation is None else read_annotation(annotation, known),
        default=None if default is None else read_value(default, known),
        hidden=flag(item.get("hidden"), "hidden"),
    )


def _check_order(parameters: Sequence[Parameter]) -> None:
    if len({parameter.name for parameter in parameters}) != len(parameters):
        raise refused("two parameters have one name")
    places = [KINDS.index(parameter.kind) for parameter in parameters]
    if places != sorted(places) or places.count(2) > 1 or places.count(4) > 1:
        raise refused("the parameters stand in an order that Python does not know")
    defaults = [_optional(parameter) for parameter in parameters if KINDS.index(parameter.kind) < 2]
    if defaults != sorted(defaults) or any(_optional(p) for p in parameters if p.kind.startswith("VAR_")):
        raise refused("a parameter without a default follows one with a default")


def _optional(parameter: Parameter) -> bool:
    return parameter.hidden or parameter.default is not None


def _old_parameters(description: Mapping[str, Any]) -> tuple[Parameter, ...]:
    given = items(description.get("func_args", []), "func_args", MAX_PARAMETERS)
    optional = items(description.get("func_kwargs", []), "func_kwargs", MAX_PARAMETERS)
    parameters = tuple(_old_parameter(mapping(item, "a parameter")) for item in (*given, *optional))
    _check_order(parameters)
    return parameters


def _old_parameter(item: Mapping[str, Any]) -> Parameter:
    default, hidden = None, False
    if "default" in item:
        default = _old_text(repr(item["default"]), read_value)
        hidden = default is None
    return Parameter(
        name=read_identifier(item.get("name"), "parameter"),
        kind="POSITIONAL_OR_KEYWORD",
        annotation=_old_text(item.get("annotation"), read_annotation) or ANY,
        default=default,
        hidden=hidden,
    )


def _old_text(value: object, read: Any) -> Node | None:
    try:
        node: Node = read(value, Known())
    except DecodeError:
        return None
    return node
