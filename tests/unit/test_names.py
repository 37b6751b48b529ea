"""Queue names and what follows from them."""

from __future__ import annotations

from uuid import UUID

import pytest

from prpc.exceptions import ConfigurationError
from prpc.names import MAX_QUEUE_NAME, QueueNames

ID = UUID("12345678-1234-5678-1234-567812345678")


def test_every_name_of_a_queue() -> None:
    names = QueueNames("task_prpc")
    assert names.calls == "prpc_task_prpc"
    assert names.raw_calls == "prpc_raw_task_prpc"
    assert names.feedback_topic == "prpc_feedback_task_prpc"
    assert names.raw_feedback_topic == "prpc_feedback_raw_task_prpc"
    assert names.feedback(ID) == "prpc_feedback_task_prpc_12345678-1234-5678-1234-567812345678"
    assert names.raw_feedback(ID) == "prpc_feedback_raw_task_prpc_12345678-1234-5678-1234-567812345678"
    assert names.control == "prpc_control_task_prpc"
    assert names.servers == "prpc_servers_task_prpc"
    assert names.server("one") == "prpc_servers_task_prpc_one"
    assert names.dead == "prpc_dead_task_prpc"
    assert names.reply("client") == "prpc_reply_task_prpc_client"
    assert names.lease("consumer") == "prpc_lease_task_prpc_consumer"


@pytest.mark.parametrize("name", ["q", "{orders}", "очередь", "a:b.c-d", "x" * MAX_QUEUE_NAME])
def test_names_that_can_be_used(name: str) -> None:
    assert QueueNames(name).calls == f"prpc_{name}"


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a\nb", "a\tb", "\x00", "a\u2028b", "a\u00a0b", "\udc80", "x" * (MAX_QUEUE_NAME + 1)]
)
def test_names_that_cannot(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used") as caught:
        QueueNames(name)
    assert (caught.value.variable, caught.value.value) == ("PRPC_QUEUE_NAME", name)
