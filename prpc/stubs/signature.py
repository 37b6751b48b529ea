"""A function -> its description: plain JSON values that a stub is generated from, on any machine."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prpc.stubs.hints import function_hints
from prpc.stubs.reading import read_functions
from prpc.stubs.schema import function_schema, server_schema
from prpc.stubs.sources import source_of
from prpc.stubs.spelling import Speller
from prpc.stubs.streams import is_generator, item_of, sent_as

__all__ = ["describe_function", "function_schema", "server_schema"]

#: Longest docstring that is described, in characters.
MAX_DOC = 20_000
MAX_NOTES = 1_000


def describe_function(
    function: Callable[..., Any],
    *,
    name: str,
    worker: str,
    idempotent: bool,
    timeout: float | None,
    bound: bool = False,
    broadcast: bool = False,
) -> dict[str, Any]:
    """Everything that a caller's stub needs to know, as plain JSON values. Never fails, whatever the function is.

    `timeout` is in seconds. With `bound`, the first parameter of a plain function is the object's own (`self`) and left
    out. The keys func_name, func_args and func_kwargs are for older readers. With `broadcast`, every server of the queue runs
    the function, and its caller gets None.
    """
    facts: dict[str, Any] = {
        "doc": _doc(function),
        "worker": worker,
        "async": _is_async(function),
        "idempotent": idempotent,
        "timeout": timeout,
    }
    if broadcast:
        facts |= {"broadcast": True, "returns": "None"}
    description = {"func_name": name, **_unknown(), **facts}
    for describe in (_whole, _bare):
        try:
            found = {"func_name": name, **describe(function, bound), **facts}
            json.dumps(found, allow_nan=False)
            read_functions([found])  # what a generator would refuse is not sent
        except Exception:  # of a function's own classes; the server registers it all the same
            continue
        description = found
        break
    return {**description, "schema": function_schema(description)}


def _whole(function: Callable[..., Any], bound: bool) -> dict[str, Any]:
    """Everything."""
    signature = inspect.signature(function)
    parameters = _parameters(signature, function, bound)
    annotations = {parameter.name: parameter.annotation for parameter in parameters}
    hints = function_hints(function, {**annotations, "return": signature.return_annotation})
    hints = {name: hint if name == "return" else sent_as(hint) for name, hint in hints.items()}
    streams = is_generator(function)
    result = item_of(hints["return"]) if streams else hints["return"]
    speller = Speller(function)
    described = [_parameter(parameter, hints[parameter.name], speller) for parameter in parameters]
    returns = speller.annotation("item" if streams else "result", result)
    return {
        **_old_keys(parameters, {item["name"]: item.get("annotation") for item in described}),
        "parameters": described,
        "returns": returns,
        "types": speller.types,
        "notes": speller.notes[:MAX_NOTES],
        **({"streams": True} if streams else {}),
    }


def _bare(function: Callable[..., Any], bound: bool) -> dict[str, Any]:
    """Names and kinds of the parameters only: for annotations or defaults that nothing can be said about."""
    parameters = _parameters(inspect.signature(function), function, bound)
    described = [_kind(parameter) for parameter in parameters]
    for item, parameter in zip(described, parameters, strict=True):
        if parameter.default is not parameter.empty:
            item["hidden"] = True
    streams = {"streams": True} if is_generator(function) else {}
    return {**_old_keys(parameters, {}), "parameters": described, "returns": None, "types": [], "notes": [], **streams}


def _unknown() -> dict[str, Any]:
    """For what has no signature, such as some built-in functions."""
    parameters = [{"name": "args", "kind": "VAR_POSITIONAL"}, {"name": "kwargs", "kind": "VAR_KEYWORD"}]
    return {"func_args": [], "func_kwargs": [], "parameters": parameters, "returns": None, "types": [], "notes": []}


def _parameters(signature: inspect.Signature, function: object, bound: bool) -> list[inspect.Parameter]:
    parameters = list(signature.parameters.values())
    return parameters[1:] if bound and not inspect.ismethod(function) else parameters


def _kind(parameter: inspect.Parameter) -> dict[str, Any]:
    return {"name": parameter.name, "kind": parameter.kind.name}


def _parameter(parameter: inspect.Parameter, hint: object, speller: Speller) -> dict[str, Any]:
    described = _kind(parameter)
    annotation = speller.annotation(parameter.name, hint)
    if annotation is not None:
        described["annotation"] = annotation
    if parameter.default is parameter.empty:
        return described
    text = source_of(parameter.default, speller)
    if text is None:
        speller.notes.append(f"{parameter.name}: the default is the server's, {_type_name(parameter.default)}")
        return {**described, "hidden": True}
    return {**described, "default": text}


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"[:200]


def _old_keys(parameters: Sequence[inspect.Parameter], annotations: Mapping[str, str | None]) -> dict[str, Any]:
    """func_args and func_kwargs, as older readers know them."""
    needed, optional = [], []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        item: dict[str, Any] = {"name": parameter.name}
        if annotations.get(parameter.name) is not None:
            item["annotation"] = annotations[parameter.name]
        if parameter.default is parameter.empty:
            needed.append(item)
        else:
            optional.append({**item, "default": parameter.default if _is_plain(parameter.default) else None})
    return {"func_args": needed, "func_kwargs": optional}


def _is_plain(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)


def _is_async(function: Callable[..., Any]) -> bool:
    try:
        plain = inspect.unwrap(function)
        return inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)
    except Exception:
        return False


def _doc(function: Callable[..., Any]) -> str | None:
    try:
        text = inspect.getdoc(function)
    except Exception:
        return None
    return text[:MAX_DOC] if isinstance(text, str) else None
