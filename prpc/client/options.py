"""What a caller sets for a call beside its arguments."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from prpc.protocol.facts import MAX_HEADERS_BYTES
from prpc.protocol.repeats import RepeatPolicy

__all__ = ["CallOptions", "seconds_of"]


def seconds_of(timeout: timedelta | float | None) -> float | None:
    """A caller's timeout in seconds; None is without end. Raises ValueError for what is no time."""
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if seconds != seconds:
        raise ValueError("timeout is not a number")
    return None if seconds == float("inf") else seconds


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What a caller sets for a call beside its arguments."""

    #: Seconds until the call's deadline; None takes PRPC_CALL_TIMEOUT_SEC.
    timeout: float | None = None
    #: Texts that the function finds in `current_call().headers`.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Refuse the call with NoServerError where nobody serves the queue.
    require_server: bool = False
    #: Whether running the function twice is as good as once; only then the call is repeated.
    idempotent: bool = False
    #: Attempts after the first; None takes PRPC_CALL_RETRIES.
    retries: int | None = None
    #: Seconds that one attempt is waited for; None takes PRPC_CALL_ATTEMPT_TIMEOUT_SEC.
    attempt_timeout: float | None = None
    #: Seconds of pause before the second attempt; None takes PRPC_CALL_BACKOFF_SEC.
    backoff: float | None = None
    #: Seconds that a reader of a stream waits for one item; None: for ever.
    item_timeout: float | None = None

    def __post_init__(self) -> None:
        self._check_repeats()
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout={self.timeout:g} cannot be used: allowed is a time above zero, or None")
        if self.item_timeout is not None and self.item_timeout < 0:
            raise ValueError(f"item_timeout={self.item_timeout:g} cannot be used: allowed is a time from zero up, or None")
        for name, value in self.headers.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"header {name!r}: {value!r} cannot be used: names and values are texts")
        if self.headers:
            _check_headers(self.headers)

    def _check_repeats(self) -> None:
        retries = self.retries
        if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int)):
            raise TypeError(f"retries={retries!r} cannot be used: allowed is a whole number")
        if retries is not None and retries < 0:
            raise ValueError(f"retries={retries} cannot be used: allowed is a whole number from 0 up")
        if self.attempt_timeout is not None and not 0 < self.attempt_timeout < math.inf:
            raise ValueError(f"attempt_timeout={self.attempt_timeout:g} cannot be used: allowed is a time above zero")
        if self.backoff is not None and not 0 <= self.backoff < math.inf:
            raise ValueError(f"backoff={self.backoff:g} cannot be used: allowed is a time from zero up")
        if self.asks_for_repeats and not self.idempotent:
            raise ValueError(
                "only calls of idempotent functions are repeated: another may run twice, and nobody said that this does no harm. "
                "Where it does none, say so with idempotent=True"
            )

    @property
    def asks_for_repeats(self) -> bool:
        """Whether something is set that has a meaning only for repeats."""
        return bool(self.retries) or self.attempt_timeout is not None or self.backoff is not None

    def policy(self, default: RepeatPolicy) -> RepeatPolicy:
        """`default` with what is set here."""
        if self.retries is None and self.attempt_timeout is None and self.backoff is None:
            return default
        return RepeatPolicy(
            default.retries if self.retries is None else self.retries,
            default.attempt_timeout if self.attempt_timeout is None else self.attempt_timeout,
            default.backoff if self.backoff is None else self.backoff,
            default.longest if self.backoff is None else max(default.longest, self.backoff),
        )


def _check_headers(headers: Mapping[str, str]) -> None:
    try:
        size = len(json.dumps(dict(headers), ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise ValueError("headers cannot be used: they hold lone surrogates") from None
    if size > MAX_HEADERS_BYTES:
        raise ValueError(f"headers cannot be used: they are {size} bytes as JSON, allowed are {MAX_HEADERS_BYTES}")
