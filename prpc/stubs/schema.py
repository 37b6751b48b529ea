"""Short hashes of what matters to a caller: the same description gives the same hash on both sides of the wire."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["function_schema", "server_schema"]

#: Texts for a reader; another one makes no stub stale.
_FOR_READERS = ("doc", "notes")


def function_schema(description: Mapping[str, Any]) -> str:
    """Hash, 16 hexadecimal digits, of name, parameters, result and types; not of texts, defaults or the kind of worker."""
    parameters = description.get("parameters")
    if parameters is None:
        parameters = [description.get("func_args"), description.get("func_kwargs")]
    elif isinstance(parameters, list):
        parameters = [_parameter(item) for item in parameters]
    types = description.get("types") or []
    # What most functions do not have leaves their hashes as they were.
    streams = ["streams"] if description.get("streams") else []
    return _digest(
        [
            *streams,
            description.get("func_name"),
            parameters,
            description.get("returns"),
            bool(description.get("idempotent")),
            [_without(item, _FOR_READERS) for item in types] if isinstance(types, list) else None,
        ]
    )


def server_schema(descriptions: Iterable[Mapping[str, Any]]) -> str:
    """Hash over all functions, whatever their order."""
    return _digest(sorted(function_schema(item) for item in descriptions))


def _parameter(item: object) -> object:
    if not isinstance(item, Mapping):
        return item
    return [item.get("name"), item.get("kind"), item.get("annotation"), "default" in item or bool(item.get("hidden"))]


def _without(item: object, keys: Iterable[str]) -> object:
    return {key: value for key, value in item.items() if key not in keys} if isinstance(item, Mapping) else item


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
