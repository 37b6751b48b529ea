"""A queue's name and every key and topic that follows from it (the wire contract's one source)."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prpc.exceptions import ConfigurationError

__all__ = ["BUILT_IN_NAMES", "MAX_QUEUE_NAME", "QueueNames"]

#: Longest queue name, in characters: Kafka allows 249 for a topic and ours add up to 22.
MAX_QUEUE_NAME = 200
#: Functions that every server answers itself.
BUILT_IN_NAMES = ("ping", "get_function_server")


@dataclass(frozen=True, slots=True)
class QueueNames:
    """Every name that belongs to one queue.

    Raises ConfigurationError where the name is empty, longer than MAX_QUEUE_NAME, or holds blanks or control characters.
    """

    queue: str

    def __post_init__(self) -> None:
        name = self.queue
        if not name or len(name) > MAX_QUEUE_NAME or not name.isprintable() or any(c.isspace() for c in name):
            raise ConfigurationError(
                f"queue name {name!r} cannot be used: 1 to {MAX_QUEUE_NAME} printable characters without blanks are allowed",
                variable="PRPC_QUEUE_NAME",
                value=name,
            )

    @property
    def calls(self) -> str:
        """Stream or topic of the calls."""
        return f"prpc_{self.queue}"

    @property
    def raw_calls(self) -> str:
        """Stream or topic of the calls in plain JSON, from other languages."""
        return f"prpc_raw_{self.queue}"

    @property
    def feedback_topic(self) -> str:
        """Kafka topic of the results."""
        return f"prpc_feedback_{self.queue}"

    @property
    def raw_feedback_topic(self) -> str:
        """Kafka topic of the results of raw calls."""
        return f"prpc_feedback_raw_{self.queue}"

    def group(self, name: str) -> str:
        """Kafka group of the servers, one for each queue: it is shared out anew whenever one of its members comes or goes."""
        return f"{name}_{self.queue}"

    @property
    def control(self) -> str:
        """Broadcast channel or topic that every server of the queue listens to (cancellations)."""
        return f"prpc_control_{self.queue}"

    @property
    def servers(self) -> str:
        """Where servers announce themselves. On Redis a sorted set: instance, by the broker's time in ms when it runs out."""
        return f"prpc_servers_{self.queue}"

    def server(self, instance: str) -> str:
        """Redis key of one server's announcement, a JSON text that runs out by itself."""
        return f"prpc_servers_{self.queue}_{instance}"

    @property
    def dead(self) -> str:
        """Stream or topic of dead letters: what could not be read or given up on, kept for a person."""
        return f"prpc_dead_{self.queue}"

    @property
    def limits(self) -> str:
        """Redis hash of what the servers of the queue set for all who call: bound of the queue, window of doubles."""
        return f"prpc_limits_{self.queue}"

    @property
    def admitted(self) -> str:
        """Start of the Redis sets of admitted message ids, one for each stretch of time."""
        return f"prpc_admitted_{self.queue}_"

    @property
    def claimed(self) -> str:
        """Start of the Redis hashes of message ids that a server claimed, one for each stretch of time."""
        return f"prpc_claimed_{self.queue}_"

    @property
    def others(self) -> str:
        """Redis hash of further callers that wait for an outcome: key of the result to their channels."""
        return f"prpc_others_{self.queue}"

    def feedback(self, message_id: UUID) -> str:
        """Redis key of one call's result."""
        return f"prpc_feedback_{self.queue}_{message_id}"

    def raw_feedback(self, message_id: UUID) -> str:
        """Redis key of one raw call's result."""
        return f"prpc_feedback_raw_{self.queue}_{message_id}"

    def reply(self, client: str) -> str:
        """Redis channel on which one client process is woken."""
        return f"prpc_reply_{self.queue}_{client}"

    def lease(self, consumer: str) -> str:
        """Redis key that lives as long as one server process renews it."""
        return f"prpc_lease_{self.queue}_{consumer}"
