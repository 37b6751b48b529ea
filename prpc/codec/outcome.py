"""A Failure as a plain dict, and back: what a caller with a reply address gets in place of a result."""

from __future__ import annotations

from typing import Any

from prpc.codec.reader import refuse
from prpc.exceptions import RemoteError
from prpc.failure import MAX_CHAIN, MAX_MEMBERS, MAX_NAMES, MAX_TEXT, Failure, type_name_of

__all__ = ["failure_from_text", "read_failure", "write_failure"]

_TEXTS = {"type_name": True, "message": True, "traceback": False}


def write_failure(failure: Failure) -> dict[str, Any]:
    """The description; what is empty is left out."""
    result: dict[str, Any] = {"type_name": failure.type_name, "message": failure.message}
    if failure.bases:
        result["bases"] = list(failure.bases)
    if failure.traceback:
        result["traceback"] = failure.traceback
    if failure.notes:
        result["notes"] = list(failure.notes)
    if failure.cause is not None:
        result["cause"] = write_failure(failure.cause)
        result["explicit_cause"] = failure.explicit_cause
    if failure.members:
        result["members"] = [write_failure(member) for member in failure.members]
    if failure.facts:
        result["facts"] = dict(failure.facts)
    return result


def read_failure(value: Any, depth: int = 0) -> Failure:
    """The failure of a description. Raises DecodeError where it is none; what is longer than a description can be is cut."""
    if type(value) is not dict:
        raise refuse("the description of a failure is no object", "form")
    for name, needed in _TEXTS.items():
        if type(value.get(name, None if needed else "")) is not str:
            raise refuse(f"the description of a failure has no text {name!r}", "form")
    facts = value.get("facts", {})
    if type(facts) is not dict or not all(type(name) is str for name in facts):
        raise refuse("the facts of a failure are no object", "form")
    cause = value.get("cause")
    members = _list(value, "members")[:MAX_MEMBERS]
    deeper = depth < MAX_CHAIN
    return Failure(
        type_name=value["type_name"][:MAX_TEXT],
        message=value["message"][:MAX_TEXT],
        bases=_texts(value, "bases")[:MAX_NAMES],
        traceback=value.get("traceback", "")[:MAX_TEXT],
        notes=_texts(value, "notes")[:MAX_MEMBERS],
        cause=read_failure(cause, depth + 1) if cause is not None and deeper else None,
        explicit_cause=value.get("explicit_cause") is True,
        members=tuple(read_failure(member, depth + 1) for member in members) if deeper else (),
        facts=facts,
    )


def failure_from_text(text: str) -> Failure:
    """What is known of a failure whose writer sends its text only."""
    return Failure(type_name=type_name_of(RemoteError), message=text)


def _list(value: dict[str, Any], name: str) -> list[Any]:
    found = value.get(name, [])
    if type(found) is not list:
        raise refuse(f"{name!r} of a failure is no list", "form")
    return found


def _texts(value: dict[str, Any], name: str) -> tuple[str, ...]:
    found = _list(value, name)
    if not all(type(text) is str for text in found):
        raise refuse(f"{name!r} of a failure holds more than texts", "form")
    return tuple(found)
