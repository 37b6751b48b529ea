"""Every error that PRPC raises, in one tree; this floor imports nothing.

PRPCError
├── ConfigurationError (ValueError)          a setting or environment value cannot be used
│   └── RegistrationError                    a function cannot be registered as asked
├── SerializationError                       a value or a text cannot cross the wire
│   ├── EncodeError (TypeError)              a value that cannot be written
│   └── DecodeError (ValueError)             a text that is refused
├── BrokerUnavailableError (ConnectionError) Redis or Kafka does not answer
└── CallError                                a call that ended without its result
    ├── RemoteError                          the function itself raised
    ├── ClientTimeOutError (TimeoutError)    the caller's own patience ended
    ├── FunctionNotFoundError (LookupError)  the server has no function of that name
    ├── BadArgumentsError (TypeError)        the arguments do not fit the function
    │   └── StaleStubError                   ... because server_func.py is older than the server
    ├── WorkerTimeoutError (TimeoutError)    the function ran longer than it may
    ├── WorkerLostError                      the worker died while it ran the function
    ├── DeadlineExceededError (TimeoutError) the call expired before it was started
    ├── CallCancelledError                   somebody cancelled the call
    ├── QueueFullError                       the queue is at its bound
    ├── NoServerError                        nobody serves the queue
    └── ServerShutdownError                  the server stopped before the call ended

Each class lists in `facts` the attributes that hold its facts; they survive pickling and the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

__all__ = [
    "BadArgumentsError",
    "BrokerUnavailableError",
    "CallCancelledError",
    "CallError",
    "ClientTimeOutError",
    "ConfigurationError",
    "DeadlineExceededError",
    "DecodeError",
    "EncodeError",
    "FunctionNotFoundError",
    "NoServerError",
    "PRPCError",
    "QueueFullError",
    "RegistrationError",
    "RemoteError",
    "SerializationError",
    "ServerShutdownError",
    "StaleStubError",
    "WorkerLostError",
    "WorkerTimeoutError",
]


def _rebuild(cls: type[PRPCError], text: str, facts: dict[str, Any]) -> PRPCError:
    return cls(text, **facts)


class PRPCError(Exception):
    """Root of the tree: `except PRPCError` catches whatever PRPC itself has to say.

    `str()` is the whole text for a reader; keyword arguments are the class's facts.
    """

    #: Names of the attributes that hold this error's facts; plain data, so that they can travel.
    facts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, text: str = "", **facts: Any) -> None:
        unknown = facts.keys() - set(self.facts)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no fact {sorted(unknown)[0]!r}")
        super().__init__(text)
        for name in self.facts:
            setattr(self, name, facts.get(name))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), {name: getattr(self, name) for name in self.facts})


class ConfigurationError(PRPCError, ValueError):
    """A setting cannot be used. The reader's own fault; the text names the variable, the value and what is allowed."""

    facts: ClassVar[tuple[str, ...]] = ("variable", "value")
    variable: str | None
    value: str | None


class RegistrationError(ConfigurationError):
    """A function cannot be registered as asked (wrong kind of worker, name taken). Fix the server's code."""

    facts = ("variable", "value", "function")
    function: str | None


class SerializationError(PRPCError):
    """A value or a text cannot cross the wire."""


class EncodeError(SerializationError, TypeError):
    """An argument or a result that cannot be written. Send plain data, a dataclass or a pydantic model instead."""

    facts = ("path", "type_name")
    #: Where in the value the culprit stands, e.g. `func_args[0].items[3]`.
    path: str | None
    type_name: str | None


class DecodeError(SerializationError, ValueError):
    """A text that is refused: broken, too large, too deep, or with tags that could run code. The sender's fault."""

    facts = ("reason", "message_id")
    #: Short word for logs and dead letters: "json", "tag", "size", "depth", "items", "form", "signature".
    reason: str | None
    #: Dashed id of the call where it could be read, so that its caller can be answered.
    message_id: str | None


class BrokerUnavailableError(PRPCError, ConnectionError):
    """The broker does not answer or refuses us. See that it runs and that the URL and the password are right."""

    facts = ("url",)
    #: The broker's URL without its password.
    url: str | None


class CallError(PRPCError):
    """A call that ended without its result."""


class RemoteError(CallError):
    """The function itself raised. `str()` is the original text.

    What a caller catches is also the nearest built-in class of the original (`except KeyError` works).
    """

    facts = ("type_name", "traceback")
    #: Name of the original class with its module, e.g. `billing.errors.CardRefused`.
    type_name: str | None
    #: The traceback as the server printed it.
    traceback: str | None


class ClientTimeOutError(CallError, TimeoutError):
    """No outcome within the time that the caller gave. The call may still run; waiting again works."""

    facts = ("message_id", "timeout", "attempts", "sent")
    message_id: str | None
    #: Seconds that were waited.
    timeout: float | None
    #: Whether the call was handed to the broker: one that was not has not run. None where only a wait ended.
    sent: bool | None
    #: How often the call was sent; None where it is not one that is repeated, or its deadline has not come.
    attempts: int | None


class FunctionNotFoundError(CallError, LookupError):
    """The server has no function of this name. Compare the spelling, or generate `server_func.py` again."""

    facts = ("function", "nearest")
    function: str | None
    #: Registered names that are spelt alike, best first.
    nearest: Sequence[str] | None


class BadArgumentsError(CallError, TypeError):
    """The arguments do not fit the function's signature or annotations. The function did not run."""

    facts = ("function", "parameter")
    function: str | None
    #: Name of the parameter at fault; None where the count is wrong.
    parameter: str | None


class StaleStubError(BadArgumentsError):
    """The arguments do not fit, and `server_func.py` was made from another version of the server. Generate it again."""


class WorkerTimeoutError(CallError, TimeoutError):
    """The function ran longer than it may and was ended (a thread function goes on unseen: Python cannot stop it)."""

    facts = ("function", "timeout", "queued", "running", "answering")
    function: str | None
    #: Seconds that it was allowed to run.
    timeout: float | None
    #: Seconds in the queue, in the function, and for everything else until the caller knew: sending and answering.
    queued: float | None
    running: float | None
    answering: float | None


class WorkerLostError(CallError):
    """The worker died while it ran the function; whether its side effects happened is not known."""

    facts = ("function", "exit_code")
    function: str | None
    #: Exit code of the worker process, negative for a signal; None where a whole server was lost.
    exit_code: int | None


class DeadlineExceededError(CallError, TimeoutError):
    """The call's deadline passed before it was started; the function did not run, unless it is idempotent and an earlier attempt
    of the call ran it."""

    facts = ("function", "timeout", "queued", "answering")
    function: str | None
    #: Seconds that were left to the call when it was sent.
    timeout: float | None
    #: Seconds in the queue, and for everything else until the caller knew: sending and answering.
    queued: float | None
    answering: float | None


class CallCancelledError(CallError):
    """The call was cancelled: dropped if it had not started, stopped if it ran."""

    facts = ("message_id",)
    message_id: str | None


class QueueFullError(CallError):
    """The queue is at its bound; the call was not accepted. Try later, or start more servers."""

    facts = ("queue", "length")
    queue: str | None
    length: int | None


class NoServerError(CallError):
    """Nobody serves the queue. Start a server, or correct PRPC_QUEUE_NAME and PRPC_URL_BROKER."""

    facts = ("queue",)
    queue: str | None


class ServerShutdownError(CallError):
    """The server stopped before the call ended. Call again."""

    facts = ("function",)
    function: str | None
