"""Annotations of the server's own functions and classes, resolved one by one; one that cannot be is only a text."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

__all__ = ["Unresolved", "class_hints", "function_hints", "outer_hint", "text_of"]

#: Longest text of an annotation in a note, in characters.
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An annotation that names what cannot be found."""

    text: str


def function_hints(function: Callable[..., Any], annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Each annotation, resolved where the function was written."""
    plain = _plain(function)
    space = getattr(plain, "__globals__", {})
    local = {parameter.__name__: parameter for parameter in getattr(plain, "__type_params__", ())}
    local.update(_closure(plain))
    return {name: _resolved(annotation, space, local) for name, annotation in annotations.items()}


def class_hints(cls: type) -> dict[str, Any]:
    """Annotations of a class and its bases, resolved where each was written."""
    hints: dict[str, Any] = {}
    for part in reversed(cls.__mro__):
        space = vars(sys.modules[part.__module__]) if part.__module__ in sys.modules else {}
        local = {name: value for name, value in vars(part).items() if isinstance(value, type)}
        local |= {parameter.__name__: parameter for parameter in getattr(part, "__type_params__", ())}
        local.setdefault(part.__name__, part)
        for name, annotation in inspect.get_annotations(part).items():
            hints[name] = _resolved(annotation, space, local)
    return hints


def outer_hint(hint: Any, *owners: Any) -> Any:
    """A hint that may be a text, resolved in the module of one of its owners: alias, NewType, type variable, class."""
    found = hint
    for owner in owners:
        module = sys.modules.get(getattr(owner, "__module__", None) or "")
        local = {parameter.__name__: parameter for parameter in getattr(owner, "__type_params__", ())}
        found = _resolved(hint, vars(module) if module else {}, local)
        if not isinstance(found, Unresolved):
            break
    return found


def text_of(annotation: object) -> str:
    """The annotation as a reader would write it, shortened."""
    if isinstance(annotation, Unresolved):
        return annotation.text
    try:
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    except Exception:
        text = type(annotation).__name__
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


def _plain(function: Callable[..., Any]) -> Any:
    """The function behind wrappers, partials, methods and callable objects."""
    found: Any = function
    for _ in range(100):
        inner = getattr(found, "func", None) or getattr(found, "__func__", None) or getattr(found, "__wrapped__", None)
        if inner is None and not hasattr(found, "__globals__") and not isinstance(found, type):
            inner = vars(type(found)).get("__call__")
        if inner is None or inner is found:
            break
        found = inner
    return found


def _closure(function: Any) -> dict[str, Any]:
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    values: dict[str, Any] = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            values[name] = cell.cell_contents
        except ValueError:
            continue
    return values


def _resolved(annotation: Any, space: dict[str, Any], local: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, space, local, include_extras=True)["it"]
    except Exception:
        return Unresolved(text_of(annotation))
