"""The message itself."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from uuid import uuid4

from prpc.prpcmessage import PRPCMessage


def fresh() -> PRPCMessage:
    return PRPCMessage("summ", (1, 2), {"z": 3}, uuid4(), datetime.now(UTC))


def test_a_fresh_call_is_not_done() -> None:
    message = fresh()
    assert not message.is_done
    assert message.result is None and message.exception_info is None and message.date_done_message is None


def test_a_result_of_none_is_a_result() -> None:
    done = fresh().done(datetime.now(UTC), None)
    assert done.is_done and done.result is None and done.exception_info is None


def test_done_leaves_the_call_as_it_was() -> None:
    message, when = fresh(), datetime.now(UTC)
    done = message.done(when, 3)
    assert not message.is_done
    assert (done.message_id, done.func_args, done.func_kwargs) == (message.message_id, message.func_args, message.func_kwargs)
    assert (done.result, done.date_done_message) == (3, when)


def test_a_failed_call_keeps_the_text() -> None:
    done = fresh().done(datetime.now(UTC), exception_info="bad value")
    assert done.is_done and done.exception_info == "bad value" and done.result is None


def test_its_path_is_the_one_on_the_wire() -> None:
    assert f"{PRPCMessage.__module__}.{PRPCMessage.__qualname__}" == "prpc.prpcmessage.PRPCMessage"


def test_it_can_be_pickled_and_copied() -> None:
    message = fresh()
    assert pickle.loads(pickle.dumps(message)) == message == copy.deepcopy(message)
