"""What `Annotated` carries and what pydantic's fields ask for -> source text, as far as it is plain."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from prpc.stubs.known import CONSTRAINTS, FIELD_ARGUMENTS
from prpc.stubs.sources import source_of

__all__ = ["extra_source", "field_arguments"]


class _NoClasses:
    def reference(self, cls: type) -> str | None:
        return None


def extra_source(extra: Any) -> Iterator[str]:
    """Source texts of one piece of metadata; none where it says nothing that can be shown."""
    if isinstance(extra, str | int | float | bytes) and type(extra) in (str, int, float, bytes, bool):
        text = source_of(extra, _NoClasses())
        yield from (text,) if text and "(" not in text[:6] else ()
    elif _is_field(extra):
        arguments = field_arguments(extra)
        if arguments:
            yield f"pydantic.Field({', '.join(f'{key}={text}' for key, text in arguments.items())})"
    else:
        yield from _constraint(extra)


def _constraint(extra: Any) -> Iterator[str]:
    module, short = type(extra).__module__, type(extra).__name__
    names = CONSTRAINTS.get(f"{module}.{short}")
    if names is not None:
        texts = {key: source_of(getattr(extra, key, None), _NoClasses()) for key in names}
        if all(text is not None for text in texts.values()):
            yield f"{module}.{short}({', '.join(f'{key}={text}' for key, text in texts.items())})"
    elif module == "annotated_types" and isinstance(extra, Iterable):
        for part in extra:
            yield from _constraint(part)


def _is_field(extra: object) -> bool:
    pydantic = sys.modules.get("pydantic.fields")
    return pydantic is not None and isinstance(extra, pydantic.FieldInfo)


def field_arguments(field: Any) -> dict[str, str]:
    """Arguments of a pydantic field -> their source texts, in the order of `known.FIELD_ARGUMENTS`."""
    holders = [field, *getattr(field, "metadata", ())]
    found: dict[str, str] = {}
    for key in FIELD_ARGUMENTS:
        for holder in holders:
            value = getattr(holder, key, None)
            text = source_of(value, _NoClasses()) if isinstance(value, str | int | float) else None
            if text is not None and not text.startswith("float("):
                found[key] = text
    if found.get("validation_alias") == found.get("alias"):
        found.pop("validation_alias", None)
    if found.get("serialization_alias") == found.get("alias"):
        found.pop("serialization_alias", None)
    return found
