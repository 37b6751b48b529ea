"""An exception as plain data: what a worker, the codec and the client hand on instead of the exception itself.

Restoring is from closed tables: no import and no call by a name that came over the wire.
"""

from __future__ import annotations

import builtins
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prpc import exceptions
from prpc.exceptions import ClientTimeOutError, PRPCError, RemoteError

__all__ = ["Failure", "describe", "failure_of", "restore", "type_name_of", "without_first_frame"]

#: Most characters of a message, of a note and of a traceback.
MAX_TEXT = 64 * 1024
#: Longest chain of causes that is described.
MAX_CHAIN = 20
#: Most members of a group, and most notes, that are described.
MAX_MEMBERS = 50
#: Most characters of one plain argument or fact.
MAX_NOTE = 4 * 1024
#: Most characters of all texts of one description together.
MAX_TOTAL = 512 * 1024
#: Most exceptions in one description, causes and members together.
MAX_EXCEPTIONS = 200
#: Longest name of a class, in characters.
MAX_NAME = 500
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
    """Class name with its module; not by the class's own attribute access, which may raise anything."""
    return f"{type.__getattribute__(kind, '__module__')}.{type.__getattribute__(kind, '__qualname__')}"[:MAX_NAME]


# Exception -> Failure


def describe(exc: BaseException) -> Failure:
    """The exception as plain data. Never raises, whatever the exception does when it is printed; long parts are cut."""
    budget = _Budget()
    budget.take(exc)
    return _describe(exc, budget, MAX_CHAIN)


def failure_of(error: Exception) -> Failure:
    """A failure that PRPC itself names: no traceback, no cause. Never raises."""
    return Failure(_name(error), _Budget().text_of(error), bases=_safely((), _bases, type(error)), facts=_facts(error))


def without_first_frame(exc: BaseException, *ours: str) -> BaseException:
    """The exception without its catcher's own frame; not by its own attribute access, which may raise anything.

    `ours`: packages whose frames behind that one are left out, too.
    """
    frames = object.__getattribute__(exc, "__traceback__")
    frames = frames and frames.tb_next
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__", "")).startswith(ours or ("\0",)):
        frames = frames.tb_next
    return BaseException.with_traceback(exc, frames)


class _Budget:
    """What one description may still hold, and whom it holds already."""

    def __init__(self) -> None:
        self._exceptions = MAX_EXCEPTIONS
        self._characters = MAX_TOTAL
        self._met: set[int] = set()

    def take(self, exc: object) -> bool:
        """Whether this exception is described: it is one, it is new, and there is room."""
        if not _is_a(exc, BaseException) or id(exc) in self._met or self._exceptions <= 0:
            return False
        self._met.add(id(exc))
        self._exceptions -= 1
        return True

    def cut(self, text: str) -> str:
        """The text, or its start and end where it is too long."""
        most = min(MAX_TEXT, self._characters)
        if len(text) > most:
            half = max(0, most // 2 - 32)
            text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[len(text) - half :]}"
        self._characters = max(0, self._characters - len(text))
        return text

    def text_of(self, exc: BaseException) -> str:
        """`str()` of an exception, which may do anything."""
        text: Any = _safely(None, str, exc)
        return self.cut(str.__str__(text)) if _is_a(text, str) else f"<{type(exc).__name__} that cannot be printed>"


T = TypeVar("T")


def _safely(default: T, call: Callable[..., T], *args: Any) -> T:
    """What the call gives, or the default: an exception's own code may raise anything, even SystemExit."""
    try:
        return call(*args)
    except BaseException:
        return default


def _is_a(value: Any, kind: type) -> bool:
    """isinstance() without asking the value itself for its class, for it may raise."""
    return issubclass(type(value), kind)


def _attribute(exc: BaseException, name: str) -> Any:
    return _safely(None, getattr, exc, name)


def _name(exc: BaseException) -> str:
    return _safely("builtins.Exception", type_name_of, type(exc))


def _describe(exc: BaseException, budget: _Budget, deeper: int) -> Failure:
    outermost = deeper == MAX_CHAIN
    origin: Failure | None = _attribute(exc, "_failure") if _is_a(exc, _Restored) else None
    message = budget.text_of(exc)
    printed = budget.cut(_traceback(exc, message, outermost))
    cause, explicit = _cause(exc)
    described = _describe(cause, budget, deeper - 1) if cause is not None and deeper > 1 and budget.take(cause) else None
    members = [_describe(member, budget, deeper - 1) for member in _members(exc) if deeper > 1 and budget.take(member)]
    return Failure(
        type_name=origin.type_name if origin else _name(exc),
        message=message,
        bases=origin.bases if origin else _safely((), _bases, type(exc)),
        traceback=printed,
        notes=_notes(exc, budget),
        cause=described,
        explicit_cause=explicit and described is not None,
        members=tuple(members),
        facts=origin.facts if origin else _facts(exc),
    )


def _bases(kind: type) -> tuple[str, ...]:
    """Names of the base classes up to the first built-in one; none for a class that is built in itself."""
    names: list[str] = []
    for base in kind.__mro__:
        if base is not kind:
            names.append(type_name_of(base))
        if base.__module__ == "builtins":
            break
    return tuple(names) if len(names) <= MAX_NAMES else (*names[: MAX_NAMES - 1], names[-1])


def _cause(exc: BaseException) -> tuple[BaseException | None, bool]:
    cause = _attribute(exc, "__cause__")
    if _is_a(cause, BaseException):
        return cause, True
    context = None if _attribute(exc, "__suppress_context__") else _attribute(exc, "__context__")
    return (context, False) if _is_a(context, BaseException) else (None, False)


def _members(exc: BaseException) -> list[Any]:
    members = _attribute(exc, "exceptions") if _is_a(exc, BaseExceptionGroup) else ()
    return list(members[:MAX_MEMBERS]) if type(members) is tuple else []


def _notes(exc: BaseException, budget: _Budget) -> tuple[str, ...]:
    notes = _attribute(exc, "__notes__")
    if type(notes) is not list:
        return ()
    return tuple(budget.cut(note) for note in notes[:MAX_MEMBERS] if type(note) is str and not note.startswith(_REMOTE))


def _traceback(exc: BaseException, message: str, outermost: bool) -> str:
    """The printed traceback: with its causes for the outermost exception, its own frames for the others."""
    if outermost and _is_short(exc):
        text = _safely("", _print, traceback.format_exception, exc)
        if text:
            return text
    frames = _safely("", _print, traceback.format_tb, _attribute(exc, "__traceback__"))
    return f"Traceback (most recent call last):\n{frames}{_name(exc)}: {message}\n" if frames else ""


def _print(function: Callable[[Any], list[str]], what: Any) -> str:
    return "".join(function(what))


def _is_short(exc: BaseException) -> bool:
    """Whether Python's own printer would be done soon: it follows every cause and every member."""
    return sum(1 for _ in zip(_related(exc), range(MAX_EXCEPTIONS), strict=False)) < MAX_EXCEPTIONS


def _related(exc: BaseException) -> Iterator[BaseException]:
    met: set[int] = set()
    todo: list[Any] = [exc]
    while todo:
        one = todo.pop()
        if _is_a(one, BaseException) and id(one) not in met:
            met.add(id(one))
            yield one
            todo += [_attribute(one, "__cause__"), _attribute(one, "__context__"), *_members(one)]


_PLAIN = (str, int, float, bool, bytes, type(None))


def _is_plain(value: Any, deeper: int = 3) -> bool:
    kind = type(value)
    if kind is list or kind is tuple:
        return deeper > 0 and len(value) <= MAX_MEMBERS and all(_is_plain(member, deeper - 1) for member in value)
    if kind is int:
        return bool(value.bit_length() <= 4096)
    return kind in _PLAIN and (kind not in (str, bytes) or len(value) <= MAX_NOTE)


def _facts(exc: BaseException) -> dict[str, Any]:
    kind = type(exc)
    if issubclass(kind, PRPCError):
        return _plain_attributes(exc, tuple(kind.facts))
    facts = _plain_attributes(exc, _attributes_of(type(exc)))
    arguments = _attribute(exc, "args")
    if type(arguments) is tuple and 0 < len(arguments) <= MAX_ARGUMENTS and _is_plain(arguments):
        facts["args"] = list(arguments)
    return facts


def _plain_attributes(exc: BaseException, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: _attribute(exc, name) for name in names}
    return {name: value for name, value in found.items() if value is not None and _is_plain(value)}


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

#: How the note begins that shows the server's traceback in the caller's.
_REMOTE = "Traceback on the server:\n"


def restore(failure: Failure) -> BaseException:
    """The exception that a caller gets.

    A PRPC error is of its own class, with its facts. Any other is a RemoteError and of the original's nearest built-in
    class, save for those that steer a program (SystemExit, KeyboardInterrupt, StopIteration...). The server's traceback
    stands in `traceback` and as the last note, so that it is printed. The exception can be pickled and copied.
    """
    exc = _restore(failure, MAX_CHAIN)
    if failure.traceback:
        exc.add_note(_REMOTE + failure.traceback.rstrip("\n"))
    return exc


def _restore(failure: Failure, deeper: int) -> BaseException:
    kind = _PRPC_ERRORS.get(failure.type_name)
    exc = _restore_prpc(kind, failure) if kind is not None else _restore_remote(failure, deeper)
    for note in failure.notes:
        exc.add_note(note)
    if failure.cause is not None and deeper > 1:
        cause = _restore(failure.cause, deeper - 1)
        if failure.explicit_cause:
            exc.__cause__ = cause
        else:
            exc.__context__ = cause
    return exc


def _restore_prpc(kind: type[PRPCError], failure: Failure) -> PRPCError:
    facts = {name: value for name, value in failure.facts.items() if name in kind.facts}
    if issubclass(kind, RemoteError):
        facts["traceback"] = failure.traceback or facts.get("traceback")
    return kind(failure.message, **facts)


def _restore_remote(failure: Failure, deeper: int) -> RemoteError:
    nearest = _nearest_builtin(failure)
    members: list[BaseException] = []
    if nearest is ExceptionGroup:
        members = [_restore(member, deeper - 1) for member in failure.members] if deeper > 1 else []
        if not members:
            nearest = Exception
    kind = _remote_class(nearest)
    text = failure.facts.get("message")
    # Not by calling the class: most built-in ones have a constructor of their own mind.
    arguments = (text if isinstance(text, str) else failure.message, members) if members else ()
    # MemoryError's own way to make one is not for classes that stand on two.
    make = Exception.__new__ if nearest is MemoryError else kind.__new__
    exc: RemoteError = make(kind, *arguments)
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
    arguments: Any = failure.facts.get("args")
    plain = isinstance(arguments, (list, tuple))
    if plain:
        # A UnicodeDecodeError, say, has its attributes from its arguments or not at all.
        _safely(None, nearest.__init__, exc, *arguments)
    for name in _attributes_of(nearest):
        if name in failure.facts:
            _safely(None, setattr, exc, name, failure.facts[name])
    exc.args = tuple(arguments) if plain else (failure.message,)
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


def _remote_class(nearest: type[Exception]) -> Any:
    """RemoteError and a built-in in one class, e.g. RemoteKeyError; made once for each of the closed table."""
    found = _remote_classes.get(nearest)
    if found is None:
        name = "RemoteException" if nearest is Exception else f"Remote{nearest.__name__}"
        doc = f"A {nearest.__name__} that a function on the server raised."
        bases = (_Restored,) if nearest is Exception else (_Restored, nearest)
        found = types.new_class(name, bases, exec_body=lambda body: body.update(__module__=__name__, __doc__=doc))
        found = _remote_classes.setdefault(nearest, found)
    return found


_remote_classes: dict[type[Exception], Any] = {}


def _builtin_exceptions() -> dict[str, type[Exception]]:
    """Built-in classes that a caller may get: those whose arrival out of the blue steers no program."""
    found = {f"builtins.{name}": kind for name, kind in vars(builtins).items() if isinstance(kind, type)}
    steering = (StopIteration, StopAsyncIteration)
    table = {name: kind for name, kind in found.items() if issubclass(kind, Exception) and not issubclass(kind, steering)}
    table["builtins.BaseExceptionGroup"] = ExceptionGroup
    return table


_BUILTINS = _builtin_exceptions()
#: A timeout that a function met in a call of its own is no timeout of its caller's, so that class is not restored.
_PRPC_ERRORS: dict[str, type[PRPCError]] = {
    type_name_of(kind): kind
    for kind in (getattr(exceptions, name) for name in exceptions.__all__)
    if kind is not ClientTimeOutError
}
