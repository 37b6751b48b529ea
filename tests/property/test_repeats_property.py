"""The rules of repeats, driven by everything that may happen to a call in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prpc.protocol.repeats import RepeatPolicy, Repeats, Step

seconds = st.floats(0, 1000, allow_nan=False)
chances = st.floats(0, 1)
policies = st.builds(RepeatPolicy, st.integers(0, 6), st.floats(0.001, 100), seconds, seconds)
deadlines = st.none() | st.floats(0.001, 5000)


class OneCall(RuleBasedStateMachine):
    """A caller that does what the rules say, a broker that does what it likes, and a model of what must hold."""

    now = 0.0
    over = False
    sending = False
    accepted = False
    in_doubt = False
    earliest = 0.0

    @initialize(policy=policies, deadline=deadlines)
    def start(self, policy: RepeatPolicy, deadline: float | None) -> None:
        self.policy = policy
        self.deadline = None if deadline is None else self.now + deadline
        self.call = Repeats(policy, self.deadline)
        self.sent = [self.call.begin()]
        self.sending, self.accepted, self.in_doubt, self.over = True, False, False, False

    @precondition(lambda self: self.over)
    @rule(policy=policies, deadline=deadlines)
    def another_call(self, policy: RepeatPolicy, deadline: float | None) -> None:
        self.start(policy, deadline)

    @precondition(lambda self: not self.over and self.sending)
    @rule(chance=chances)
    def broker_takes_it(self, chance: float) -> None:
        self.call.accepted(self.sent[-1], self.now, chance)
        self.sending, self.accepted = False, True
        self.earliest = self.now + self.policy.attempt_timeout

    @precondition(lambda self: not self.over and self.sending)
    @rule(chance=chances, passing=st.booleans())
    def broker_fails(self, chance: float, passing: bool) -> None:
        goes_on = self.call.failed(self.sent[-1], self.now, chance, passing=passing)
        self.sending, self.earliest = False, self.now
        self.in_doubt = self.in_doubt or passing
        left = len(self.sent) <= self.policy.retries
        assert goes_on == (self.accepted or (self.in_doubt and left))
        self.over = not goes_on

    @precondition(lambda self: not self.over)
    @rule(chance=chances, passing=st.booleans())
    def connection_ends(self, chance: float, passing: bool) -> None:
        goes_on = self.call.lost(self.now, chance, passing=passing)
        self.in_doubt = self.in_doubt or self.sending or self.accepted
        self.sending = self.accepted = False
        self.earliest = self.now
        assert goes_on == (passing and len(self.sent) <= self.policy.retries)
        self.over = not goes_on

    @precondition(lambda self: not self.over)
    @rule(data=st.data(), chance=chances, passing=st.booleans())
    def word_of_an_older_attempt_comes_late(self, data: Any, chance: float, passing: bool) -> None:
        older = self.sent[:-1] if self.sending else self.sent
        if older:
            before, attempt = self.call.moment, data.draw(st.sampled_from(older))
            assert self.call.failed(attempt, self.now, chance, passing=passing)
            self.call.accepted(attempt, self.now, chance)
            assert self.call.moment == before

    @precondition(lambda self: not self.over)
    @rule(passed=seconds)
    def time_passes(self, passed: float) -> None:
        """Up to the call's moment: timers may be late, never early."""
        moment = self.call.moment
        if moment is None or self.now + passed < moment:
            self.now += passed
            assert self.call.due(self.now) is Step.WAIT
            return
        self.now = max(self.now, moment)
        step = self.call.due(self.now)
        assert step is not Step.WAIT
        if step is Step.EXPIRE:
            assert self.deadline is not None and self.now >= self.deadline
            self.over = True
            return
        assert self.deadline is None or self.now < self.deadline
        assert self.now >= self.earliest and not self.sending
        self.sent.append(self.call.begin())
        self.sending = True

    @invariant()
    def attempts_are_counted_and_bounded(self) -> None:
        if hasattr(self, "sent"):
            assert self.sent == list(range(1, len(self.sent) + 1))
            assert self.call.attempts == len(self.sent) <= 1 + self.policy.retries

    @invariant()
    def a_call_is_never_forgotten(self) -> None:
        """While it goes on, there is a moment to come, a word of the broker, or an answer to wait for."""
        if hasattr(self, "sent") and not self.over:
            assert self.call.moment is not None or self.sending or self.accepted


TestOneCall = OneCall.TestCase
