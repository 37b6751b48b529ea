"""The functions of one server: name -> what to run, where, and how its arguments are bound."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from prpc.conversion import resolve_hints
from prpc.exceptions import BadArgumentsError, FunctionNotFoundError, RegistrationError, StaleStubError
from prpc.names import BUILT_IN_NAMES
from prpc.server.binding import Binder
from prpc.workers.base import WorkerKind

__all__ = ["STALE_STUB", "RegisteredFunction", "Registry", "perhaps_stale", "public_methods"]


_NO_HINT = inspect.Signature.empty
_KINDS = ", ".join(repr(kind.value) for kind in WorkerKind)


@dataclass(slots=True)
class RegisteredFunction:
    """One function of a server."""

    name: str
    function: Callable[..., Any]
    kind: WorkerKind
    #: Longest run in seconds; None where only the server's and the call's own limits hold.
    timeout: float | None = None
    #: Whether running it twice does no harm: it is repeated when its server is lost.
    idempotent: bool = False
    #: Most calls of it that run at once in this server; None where only the server's slots count.
    max_concurrency: int | None = None
    #: Whether it is a generator, whose items stream to the caller.
    streams: bool = False
    #: Whether a call of it is an event for every server of the queue.
    broadcast: bool = False
    #: Most events of it that run at once in this server; None where only the workers for events count.
    events_at_once: int | None = None
    _binder: Binder | None = field(default=None, repr=False)

    @property
    def binder(self) -> Binder:
        """Made when the first call or the server's start asks: annotations may name classes defined further down."""
        if self._binder is None:
            self._binder = Binder(self.name, self.function)
        return self._binder


def check_feeds(function: RegisteredFunction) -> None:
    """Raise RegistrationError where a parameter that is fed from a stream cannot be: by the function's worker, or at all."""
    name, kind = function.name, function.kind
    for parameter, is_async in function.binder.feeds.items():
        wanted = "AsyncIterator" if kind is WorkerKind.ASYNC else "Iterator"
        if kind is WorkerKind.PROCESS:
            reason = "process workers take no streams: use 'thread', or 'async' with an AsyncIterator, or annotate it as a list"
        elif is_async is not (kind is WorkerKind.ASYNC):
            reason = f"a function of type {kind.value!r} reads a stream as {wanted}"
        elif function.broadcast:
            reason = "a stream cannot be sent to every server, so the function cannot be broadcast; annotate it as a list"
        elif function.idempotent:
            reason = "a stream cannot be sent twice, so the function cannot be idempotent"
        else:
            continue
        raise _refused(name, f"function {name!r}, parameter {parameter!r}: {reason}")


#: What to do where a caller's stubs and the server do not fit together.
STALE_STUB = "server_func.py was made from another version of this server: run python -m prpc.create_server_func"


def perhaps_stale(error: BadArgumentsError, caller_schema: str | None, schema: str | None) -> BadArgumentsError:
    """The error, with a hint where the caller's stub was made from another version of the function."""
    if not caller_schema or caller_schema == schema:
        return error
    return StaleStubError(f"{error}; {STALE_STUB}", function=error.function, parameter=error.parameter)


class Registry:
    """Functions by name, in the order of registration."""

    def __init__(self) -> None:
        self._functions: dict[str, RegisteredFunction] = {}

    def __len__(self) -> int:
        return len(self._functions)

    def __iter__(self) -> Iterator[RegisteredFunction]:
        return iter(self._functions.values())

    def get(self, name: str) -> RegisteredFunction | None:
        """The function of this name, or None."""
        return self._functions.get(name)

    def add(
        self,
        function: Callable[..., Any],
        worker_type: str,
        *,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        idempotent: bool = False,
        lacks: Callable[[RegisteredFunction], str | None] | None = None,
        max_concurrency: int | None = None,
        broadcast: bool = False,
        max_streams: int = 1000,
    ) -> RegisteredFunction:
        """Register a function. Raises RegistrationError, naming the function, where it cannot be served as asked.

        `lacks`: what a server that runs already would have had to be started with to run it; None where there is all it needs.
        `max_streams`: stands for `max_concurrency` of a streaming function that has none.
        """
        name = _checked_name(function, name)
        if name in self._functions:
            raise _refused(name, f"function {name!r} is registered twice; give one of the two another name with name=...")
        kind = _checked_kind(name, worker_type)
        if broadcast:
            _check_gives_nothing(name, function)
        _check_callable(name, function, kind)
        limit = _checked_limit(name, max_concurrency)
        registered = RegisteredFunction(name, function, kind, _checked_timeout(name, timeout), bool(idempotent))
        registered.streams = is_generator_function(function)
        if broadcast:
            registered.broadcast, registered.events_at_once = True, limit
        else:
            registered.max_concurrency = max_streams if registered.streams and limit is None else limit
        missing = None if lacks is None else lacks(registered)
        if missing is not None:
            raise _refused(name, f"function {name!r} comes too late: the server runs, and was started without any {missing}")
        self._functions[name] = registered
        return registered

    def not_found(self, name: str, *, by_stub: bool = False) -> FunctionNotFoundError:
        """The error for a call of a function that is not here, with the nearest names; a generated stub had it once."""
        known = [*BUILT_IN_NAMES, *self._functions]
        lowered = {candidate.lower(): candidate for candidate in reversed(known)}
        nearest = [lowered[match] for match in difflib.get_close_matches(name[:200].lower(), lowered, n=3)]
        if nearest:
            hint = "; did you mean " + " or ".join(repr(candidate) for candidate in nearest) + "?"
        else:
            hint = "; it has " + ", ".join(repr(candidate) for candidate in list(self._functions)[:20] or known)
        if by_stub:
            hint += f"; {STALE_STUB}"
        return FunctionNotFoundError(f"func name {name[:200]!r} not found in server{hint}", function=name[:200], nearest=nearest)


def public_methods(service: object) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and bound method of every public method of an object, in the order of definition, base classes first.

    Left out are names with a leading underscore, properties, nested classes and attributes that merely hold a function.
    """
    if isinstance(service, type) or inspect.ismodule(service):
        raise _refused(repr(service), f"register_service() takes an object, not {service!r}")
    seen: set[str] = set()
    for cls in reversed(type(service).__mro__[:-1]):
        for name, attribute in vars(cls).items():
            if name.startswith("_") or name in seen or not _is_method(attribute):
                continue
            seen.add(name)
            # The most derived definition counts, which may have turned the name into something else.
            if _is_method(inspect.getattr_static(type(service), name)):
                yield name, getattr(service, name)


def _is_method(attribute: Any) -> bool:
    return inspect.isfunction(attribute) or isinstance(attribute, staticmethod | classmethod | functools.partialmethod)


def needs_loop(function: Any) -> bool:
    """Whether it is `async def`, with or without `yield`: also for partials, bound methods and objects that are called."""
    return _is(inspect.iscoroutinefunction, function) or _is(inspect.isasyncgenfunction, function)


def is_generator_function(function: Any) -> bool:
    """Whether calling it gives a generator, plain or async: as above for what wraps one."""
    return _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function)


def _is(test: Callable[[Any], bool], function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return test(function) or (not inspect.isroutine(function) and test(inspect.getattr_static(type(function), "__call__", None)))


def _refused(name: str, text: str) -> RegistrationError:
    return RegistrationError(text, function=name)


def _checked_name(function: Any, name: str | None) -> str:
    if not callable(function):
        raise _refused(repr(function), f"{function!r} is not a function")
    if name is None:
        plain = function
        while isinstance(plain, functools.partial):
            plain = plain.func
        name = getattr(plain, "__name__", None)
        if not isinstance(name, str) or not name.isidentifier():
            raise _refused(repr(function), f"{function!r} has no name to be called by; give it one with name=...")
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        text = f"function name {name!r} cannot be used: allowed are Python names, also several joined by dots"
        raise _refused(str(name), text)
    if name in BUILT_IN_NAMES:
        raise _refused(name, f"function name {name!r} is taken by a built-in function of every server; use another one")
    return name


def _checked_kind(name: str, worker_type: str) -> WorkerKind:
    try:
        return WorkerKind(worker_type)
    except ValueError:
        raise _refused(
            name, f"function {name!r}: worker type {worker_type!r} cannot be used; allowed is one of {_KINDS}"
        ) from None


def _checked_timeout(name: str, timeout: timedelta | float | None) -> float | None:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise _refused(name, f"function {name!r}: timeout {timeout!r} cannot be used; allowed are seconds above 0 or a timedelta")
    return float(seconds)


def _checked_limit(name: str, limit: int | None) -> int | None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        text = f"function {name!r}: max_concurrency {limit!r} cannot be used; allowed is a whole number from 1 up"
        raise _refused(name, text)
    return limit


def _check_gives_nothing(name: str, function: Any) -> None:
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        raise _refused(
            name, f"function {name!r} is a generator and broadcast: it runs in every server, and nobody gets its items"
        )
    hint = resolve_hints(function).get("return", _NO_HINT)
    if hint is _NO_HINT:
        try:
            hint = inspect.signature(function).return_annotation
        except Exception:  # a signature that Python does not know, or an annotation that cannot be read yet
            return
    if not any(hint is nothing for nothing in (None, type(None), _NO_HINT)):
        text = f"function {name!r} is broadcast: it runs in every server, and nobody gets its result; annotate it with -> None"
        raise _refused(name, text)


def _check_callable(name: str, function: Any, kind: WorkerKind) -> None:
    if isinstance(function, type):
        raise _refused(name, f"{name!r} is a class; register the methods of an object with register_service({name}())")
    if kind is WorkerKind.PROCESS and is_generator_function(function):
        text = (
            f"function {name!r} is a generator: process workers do not stream, for each item would wait for the way through "
            "the worker's pipe and back; register it with worker type 'thread', or 'async' for an async generator"
        )
        raise _refused(name, text)
    coroutine = needs_loop(function)
    if coroutine and kind is not WorkerKind.ASYNC:
        raise _refused(
            name,
            f"function {name!r} is a coroutine function (async def): register it with worker type 'async', not {kind.value!r}",
        )
    if not coroutine and kind is WorkerKind.ASYNC:
        text = f"function {name!r} is a plain function: worker type 'async' takes async def functions; use 'thread' or 'process'"
        raise _refused(name, text)
    if kind is WorkerKind.PROCESS and "<" in getattr(function, "__qualname__", ""):
        text = f"function {name!r} is defined inside another one: process workers import it by name, so define it at module level"
        raise _refused(name, text)
