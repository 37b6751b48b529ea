import contextvars
import dataclasses
import threading

import pytest

from prpc.call_context import CurrentCall, bind_current_call, current_call
from prpc.deadline import Deadline, SystemClock


class ManualClock(SystemClock):
    seconds = 10.0

    def monotonic(self):
        return self.seconds


def make_call(name="f", **more):
    return CurrentCall("id-1", name, {"trace": "7"}, Deadline(None), **more)


def test_outside_of_a_call():
    with pytest.raises(LookupError, match="only inside a function that a PRPC server runs"):
        contextvars.Context().run(current_call)


def test_facts_of_the_current_call():
    call = make_call()
    context = contextvars.Context()
    context.run(bind_current_call, call)
    assert context.run(current_call) is call
    assert (call.message_id, call.function, call.headers, call.attempt) == ("id-1", "f", {"trace": "7"}, 1)
    assert call.remaining() is None
    with pytest.raises(LookupError):
        contextvars.Context().run(current_call)
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.attempt = 2


def test_each_context_has_its_own_call():
    found = {}

    def work(name):
        bind_current_call(make_call(name))
        found[name] = current_call().function

    threads = [threading.Thread(target=contextvars.Context().run, args=(work, name)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"a": "a", "b": "b"}


def test_remaining_counts_on_the_calls_clock():
    clock = ManualClock()
    call = CurrentCall("id-1", "f", {}, Deadline.after(clock, 2), clock=clock)
    assert call.remaining() == 2
    clock.seconds = 11.5
    assert call.remaining() == 0.5
    clock.seconds = 99.0
    assert call.remaining() == 0


def test_cancelled_is_seen_from_everywhere():
    call = make_call()
    assert not call.cancelled
    call.mark_cancelled()
    assert call.cancelled
    assert "_cancelled" not in repr(call) and "clock" not in repr(call)
