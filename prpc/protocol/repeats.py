"""When a call is sent again: the rules of repeats. No I/O, no clock, no chance of its own, no asyncio.

One call is sent up to `1 + retries` times, always under the same message id, and one attempt at a time: the next is not
begun before the broker has said what became of the last. An attempt that brought no answer within its time is followed by
the next after a pause. Attempts never end a call that the broker has accepted; its deadline does.

Moments are seconds on one monotonic scale, `chance` is a number from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["RepeatPolicy", "Repeats", "Step"]

#: Doublings after which a pause is at its bound anyway; more would overflow.
_MOST_DOUBLINGS = 64


class Step(Enum):
    """What to do with a call whose moment has come."""

    WAIT = "wait"
    SEND = "send"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class RepeatPolicy:
    """How often and how soon; times in seconds."""

    #: Attempts after the first.
    retries: int
    #: How long one attempt is waited for.
    attempt_timeout: float
    #: Pause before the second attempt; each further one is twice as long.
    backoff: float
    #: Longest pause.
    longest: float

    def pause(self, attempt: int, chance: float) -> float:
        """Seconds between the end of this attempt and the next: half of them fixed, half scattered."""
        whole = min(self.backoff * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS), self.longest)
        return whole * (0.5 + chance / 2)


class Repeats:
    """The attempts of one call."""

    __slots__ = ("_accepted", "_answered", "_deadline", "_next", "_policy", "_sending", "attempts", "in_doubt")

    def __init__(self, policy: RepeatPolicy, deadline: float | None) -> None:
        """`deadline` is the moment that ends the call whatever its attempts do; None: without end."""
        #: Attempts begun so far.
        self.attempts = 0
        self._policy = policy
        self._deadline = deadline
        #: Moment of the next attempt; None while one is handed over, and once there are no more.
        self._next: float | None = None
        #: Whether the broker has not said yet what became of the last attempt.
        self._sending = False
        #: Whether the broker took one of the attempts: its answer may still come.
        self._accepted = False
        self._answered = False
        #: Whether it is not known what became of an attempt: it may run, whatever a later one is told.
        self.in_doubt = False

    @property
    def moment(self) -> float | None:
        """When `due` wants to be asked next; None: nothing is left but to wait."""
        if self._next is None:
            return self._deadline
        return self._next if self._deadline is None else min(self._next, self._deadline)

    @property
    def unsent(self) -> bool:
        """Whether the broker has none of the attempts, as far as is known, and another is planned."""
        return self._next is not None and not self._accepted

    def begin(self) -> int:
        """Note that an attempt is handed over now. Returns its number, from 1."""
        self.attempts += 1
        self._sending, self._next = True, None
        return self.attempts

    def accepted(self, attempt: int, now: float, chance: float) -> None:
        """The broker has this attempt: its time runs from here."""
        if self._is_current(attempt):
            self._sending, self._accepted = False, True
            self._plan(now + self._policy.attempt_timeout, chance)

    def failed(self, attempt: int, now: float, chance: float, *, passing: bool, sent: bool = True) -> bool:
        """This attempt was not taken, or it is not known. Whether the call goes on; else the error is its outcome.

        `passing`: the error may be gone next time, and the broker may have the attempt all the same, if any was `sent`. Where an
        earlier attempt was accepted no error ends the call; where it is in doubt the call goes on as after a passing one.
        """
        if not self._is_current(attempt):
            return True
        self._sending, self.in_doubt = False, self.in_doubt or (passing and sent)
        planned = (passing or self.in_doubt or self._accepted) and self._plan(now, chance)
        return planned or self._accepted

    def answered(self) -> None:
        """A server says that it runs the call: there are no further attempts."""
        self._answered, self._accepted, self._next = True, True, None  # so the broker has it, whatever its own answer was

    def lost(self, now: float, chance: float, *, passing: bool, sent: bool = True) -> bool:
        """No answer to what was sent, if anything was, can come any more: the reply address is gone. Whether the call goes on."""
        self.in_doubt = self.in_doubt or (sent and (self._sending or self._accepted))
        self._sending = self._accepted = False
        return passing and self._plan(now, chance)

    def due(self, now: float) -> Step:
        """What to do at this moment; SEND wants `begin` to follow."""
        if self._deadline is not None and now >= self._deadline:
            return Step.EXPIRE
        return Step.SEND if self._next is not None and now >= self._next else Step.WAIT

    def _is_current(self, attempt: int) -> bool:
        return self._sending and attempt == self.attempts

    def _plan(self, start: float, chance: float) -> bool:
        """Set the moment of the next attempt; False where there are no more."""
        more = not self._answered and self.attempts <= self._policy.retries
        self._next = start + self._policy.pause(max(self.attempts, 1), chance) if more else None
        return more
