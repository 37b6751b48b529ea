"""An exception as plain data: what a worker, the codec and the client hand on instead of the exception itself.

Restoring is from closed tables: no import and no call by a name that came over the wire.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from prpc import exceptions
from prpc.exceptions import ClientTimeOutError, PRPCError, RemoteError

__all__ = ["Failure", "describe", "failure_of", "restore", "type_name_of"]

#: Most characters of a message, of a note and of a traceback.
MAX_TEXT = 64 * 1024
#: Longest chain of causes that is described.
MAX_CHAIN = 20
#: Most members of a group, and most notes, that are described.
MAX_MEMBERS = 50
#: Most characters of all texts of one description together.
MAX_TOTAL = 512 * 1024
#: Most exceptions in one description, causes and members together.
MAX_EXCEPTIONS = 200
#: Most base classes that are named.
MAX_NAMES = 20
#: Most plain arguments that are described.
MAX_ARGUMENTS = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """One exception, described. Made by `describe`, turned back by `restore`."""

    #: Class with its module, e.g. `builtins.KeyError` or `prpc.exceptions.WorkerLostError`.
    type_name: str
    #: `str()` of the original.
    message: str
    #: Names of the original's base classes with their modules, nearest first, ending at the first built-in one.
    bases: tuple[str, ...] = ()
    #: Traceback text as the server printed it; empty where there is none.
    traceback: str = ""
    #: `__notes__` of the original.
    notes: tuple[str, ...] = ()
    #: The explicit cause (`raise ... from`) or, failing that, the context that was not suppressed.
    cause: Failure | None = None
    #: Whether `cause` was an explicit `from`.
    explicit_cause: bool = False
    #: Members of an exception group.
    members: tuple[Failure, ...] = ()
    #: Facts of a PRPC error (its `facts`), or the plain arguments (`args`) of a built-in one.
    facts: Mapping[str, Any] = field(default_factory=dict)


def type_name_of(kind: type) -> str:
    """Class name with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"[:MAX_TEXT]


# Exception -> Failure


def describe(exc: BaseException) -> Failure:
    """The exception as plain data. Never raises, whatever the exception does when it is printed; long parts are cut."""
    return _describe(exc, _Budget(), MAX_CHAIN, whole=True)


def failure_of(error: PRPCError) -> Failure:
    """A failure that PRPC itself names: no traceback, no cause."""
    return Failure(type_name_of(type(error)), _text(error), bases=_bases(type(error)), facts=_facts(error))


class _Budget:
    """What one description may still hold; also knows whom it has met."""

    def __init__(self) -> None:
        self.left = MAX_EXCEPTIONS
        self._met: set[int] = set()

    def take(self, exc: object) -> bool:
        """Whether this exception is described: it is one, it is new, and there is room."""
        if not isinstance(exc, BaseException) or id(exc) in self._met or self.left <= 0:
            return False
        self._met.add(id(exc))
        self.left -= 1
        return True


def _describe(exc: BaseException, budget: _Budget, deeper: int, *, whole: bool) -> Failure:
    if whole:
        budget.take(exc)
    origin = _restored_from(exc)
    cause, explicit = _cause(exc)
    members = _members(exc) if deeper else []
    described_cause = _describe(cause, budget, deeper - 1, whole=False) if cause and deeper and budget.take(cause) else None
    return Failure(
        type_name=origin.type_name if origin else type_name_of(type(exc)),
        message=_text(exc),
        bases=origin.bases if origin else _bases(type(exc)),
        traceback=_traceback(exc, whole=whole),
        notes=_notes(exc),
        cause=described_cause,
        explicit_cause=explicit and described_cause is not None,
        members=tuple(_describe(m, budget, deeper - 1, whole=False) for m in members if budget.take(m)),
        facts=origin.facts if origin else _facts(exc),
    )


def _guarded(read: Callable[[], Any], default: Any) -> Any:
    """What `read` gives, or the default: an exception's own code may do anything, even raise SystemExit."""
    try:
        return read()
    except BaseException:
        return default


def _text(exc: BaseException) -> str:
    text = _guarded(lambda: str(exc), None)
    if type(text) is not str:
        return f"<{type(exc).__name__} that cannot be printed>"
    return _cut(str.__str__(text))


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2 - 32
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _bases(kind: type) -> tuple[str, ...]:
    """Names of the base classes up to the first built-in one; none for a class that is built in itself."""
    names: list[str] = []
    for base in kind.__mro__:
        if base is not kind:
            names.append(type_name_of(base))
        if base.__module__ == "builtins":
            break
    return tuple(names[: MAX_NAMES - 1] + names[-1:]) if len(names) > MAX_NAMES else tuple(names)


def _restored_from(exc: BaseException) -> Failure | None:
    found = exc.__dict__.get("_failure") if isinstance(exc, RemoteError) else None
    return found if isinstance(found, Failure) else None


def _cause(exc: BaseException) -> tuple[BaseException | None, bool]:
    cause = _guarded(lambda: exc.__cause__, None)
    if isinstance(cause, BaseException):
        return cause, True
    context = _guarded(lambda: None if exc.__suppress_context__ else exc.__context__, None)
    return (context, False) if isinstance(context, BaseException) else (None, False)


def _members(exc: BaseException) -> list[Any]:
    if not isinstance(exc, BaseExceptionGroup):
        return []
    return list(_guarded(lambda: tuple(exc.exceptions), ()))[:MAX_MEMBERS]


def _notes(exc: BaseException) -> tuple[str, ...]:
    notes = _guarded(lambda: list(exc.__notes__), [])
    return tuple(_cut(note) for note in notes[:MAX_MEMBERS] if type(note) is str)


def _traceback(exc: BaseException, *, whole: bool) -> str:
    """The printed traceback: with its causes for the outermost exception, its own frames for the others."""
    if whole and _is_short(exc):
        text = _guarded(lambda: "".join(traceback.format_exception(exc)), None)
        if type(text) is str:
            return _cut(text)
    frames = _guarded(lambda: "".join(traceback.format_tb(exc.__traceback__)), "")
    return _cut(f"Traceback (most recent call last):\n{frames}{type_name_of(type(exc))}: {_text(exc)}\n") if frames else ""


def _is_short(exc: BaseException) -> bool:
    """Whether Python's own printer would be done soon: it follows every cause and every member."""
    return sum(1 for _ in zip(_related(exc), range(MAX_EXCEPTIONS), strict=False)) < MAX_EXCEPTIONS


def _related(exc: BaseException) -> Iterator[BaseException]:
    met: set[int] = set()
    todo: list[Any] = [exc]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and id(one) not in met:
            met.add(id(one))
            yield one
            todo += [_guarded(lambda one=one: one.__cause__, None), _guarded(lambda one=one: one.__context__, None)]
            todo += _guarded(lambda one=one: one.exceptions, ()) if isinstance(one, BaseExceptionGroup) else ()


_PLAIN = (str, int, float, bool, bytes, type(None))


def _is_plain(value: Any, depth: int = 3) -> bool:
    if type(value) in (list, tuple):
        return depth > 0 and len(value) <= 100 and all(_is_plain(member, depth - 1) for member in value)
    if type(value) is int:
        return value.bit_length() <= 4096
    return type(value) in _PLAIN and (not isinstance(value, (str, bytes)) or len(value) <= MAX_TEXT)


def _facts(exc: BaseException) -> dict[str, Any]:
    if isinstance(exc, PRPCError):
        names = tuple(name for name in type(exc).facts if type(name) is str)
        found = {name: _guarded(lambda name=name: getattr(exc, name), None) for name in names}
        return {name: value for name, value in found.items() if value is not None and _is_plain(value)}
    arguments = _guarded(lambda: exc.args, ())
    facts: dict[str, Any] = {}
    if type(arguments) is tuple and 0 < len(arguments) <= MAX_ARGUMENTS and _is_plain(arguments):
        facts["args"] = list(arguments)
    for name in _attributes_of(type(exc)):
        value = _guarded(lambda name=name: getattr(exc, name), None)
        if value is not None and _is_plain(value):
            facts[name] = value
    return facts


def _attributes_of(kind: type) -> tuple[str, ...]:
    return next((names for base, names in _ATTRIBUTES.items() if issubclass(kind, base)), ())


#: Attributes that a built-in exception has beside its arguments.
_ATTRIBUTES: dict[type[BaseException], tuple[str, ...]] = {
    OSError: ("errno", "strerror", "filename", "filename2"),
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
    BaseExceptionGroup: ("message",),
    SyntaxError: ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset"),
}


# Failure -> exception


def restore(failure: Failure) -> BaseException:
    """The exception that a caller gets.

    A PRPC error is of its own class, with its facts. Any other is a RemoteError and, where the original's nearest
    built-in class can be caught with `except Exception`, of that class too. It can be pickled and copied.
    """
    return _restore(failure, MAX_CHAIN)


def _restore(failure: Failure, deeper: int) -> BaseException:
    kind = _PRPC_ERRORS.get(failure.type_name)
    exc = _restore_prpc(kind, failure) if kind is not None else _restore_remote(failure, deeper)
    for note in failure.notes:
        exc.add_note(note)
    if failure.cause is not None and deeper:
        cause = _restore(failure.cause, deeper - 1)
        if failure.explicit_cause:
            exc.__cause__ = cause
        else:
            exc.__context__ = cause
    return exc


def _restore_prpc(kind: type[PRPCError], failure: Failure) -> PRPCError:
    facts = {name: value for name, value in failure.facts.items() if name in kind.facts}
    if issubclass(kind, RemoteError):
        facts.setdefault("traceback", failure.traceback or None)
    return kind(failure.message, **facts)


def _restore_remote(failure: Failure, deeper: int) -> RemoteError:
    nearest = _nearest_builtin(failure)
    if issubclass(nearest, BaseExceptionGroup):
        members = [_restore(member, deeper - 1) for member in failure.members] if deeper else []
        if not members:
            nearest = Exception
    kind = _remote_class(nearest)
    if issubclass(kind, ExceptionGroup):
        text = failure.facts.get("message")
        exc = kind.__new__(kind, text if isinstance(text, str) else failure.message, members)
    else:
        exc = kind.__new__(kind)
    _fill(exc, nearest, failure)
    return exc


def _nearest_builtin(failure: Failure) -> type[Exception]:
    for name in (failure.type_name, *failure.bases):
        found = _BUILTINS.get(name)
        if found is not None:
            return found
    return Exception


def _fill(exc: Any, nearest: type[Exception], failure: Failure) -> None:
    """Give the new exception its text, its facts and what is plain of the original's attributes."""
    arguments = failure.facts.get("args")
    if isinstance(arguments, (list, tuple)):
        # A UnicodeDecodeError, say, has its attributes from its arguments or not at all.
        _guarded(lambda: nearest.__init__(exc, *arguments), None)
    for name in _attributes_of(nearest):
        if name in failure.facts and name != "message":
            _guarded(lambda name=name: setattr(exc, name, failure.facts[name]), None)
    exc.args = tuple(arguments) if isinstance(arguments, (list, tuple)) else (failure.message,)
    exc.type_name = failure.type_name
    exc.traceback = failure.traceback or None
    exc._failure = failure


class _Restored(RemoteError):
    """What every restored remote exception is, beside its nearest built-in class."""

    _failure: Failure

    def __str__(self) -> str:
        return self._failure.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._failure.message!r}, type_name={self._failure.type_name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, (self._failure,)


@lru_cache(maxsize=256)
def _remote_class(nearest: type[Exception]) -> type[Any]:
    """RemoteError and a built-in in one class, e.g. RemoteKeyError."""
    if nearest is Exception:
        return _RemoteException
    body = {"__module__": __name__, "__doc__": f"A {nearest.__name__} that a function on the server raised."}
    name = f"Remote{nearest.__name__}"
    return type(name, (_Restored, nearest), body | {"__qualname__": name})


class _RemoteException(_Restored):
    """An exception that a function on the server raised and that is near to no built-in class."""


_RemoteException.__name__ = _RemoteException.__qualname__ = "RemoteException"


def _builtin_exceptions() -> dict[str, type[Exception]]:
    """Built-in classes that a caller may get: those whose arrival out of the blue changes no program's flow."""
    unsafe = (StopIteration, StopAsyncIteration)
    found = {f"builtins.{name}": kind for name, kind in vars(builtins).items() if isinstance(kind, type)}
    table = {name: kind for name, kind in found.items() if issubclass(kind, Exception) and not issubclass(kind, unsafe)}
    table["builtins.BaseExceptionGroup"] = ExceptionGroup
    return table


_BUILTINS = _builtin_exceptions()
#: A timeout that a function met in a call of its own is no timeout of its caller's, so that class is not restored.
_PRPC_ERRORS: dict[str, type[PRPCError]] = {
    type_name_of(kind): kind
    for kind in (getattr(exceptions, name) for name in exceptions.__all__)
    if kind is not ClientTimeOutError
}
