"""How deliveries of a Kafka consumer begin and end: the start is committed, the outcome is sent, the end is marked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from aiokafka import ConsumerRecord

from prpc.brokers.awaiting import Turns, answered, background
from prpc.brokers.base import Reply
from prpc.brokers.kafka_group import KafkaGroup
from prpc.brokers.kafka_ids import Outcomes
from prpc.brokers.kafka_replies import KafkaReplies
from prpc.brokers.kafka_tenure import KafkaDelivery, Tenure
from prpc.settings import Settings

__all__ = ["KafkaEndings"]

log = logging.getLogger(__name__)

#: Seconds between two tries where Kafka does not take a commit.
AGAIN_AFTER = 0.2


class KafkaEndings:
    """The deliveries of one consumer. See Delivery for what the methods promise."""

    def __init__(
        self, group: KafkaGroup, replies: KafkaReplies, settings: Settings, again: Callable[[Tenure, ConsumerRecord], None]
    ) -> None:
        self._group, self._replies, self._again = group, replies, again
        self._outcomes = Outcomes()
        self._open: set[asyncio.Future[Any]] = set()
        self._turns = Turns()
        #: Whether what is released stays where it is, for the partition's next owner.
        self.stopping = False

    async def flush(self) -> None:
        """Until everything that was begun is decided."""
        while self._open:
            await asyncio.wait(list(self._open))

    # before a call runs

    def claim(
        self, delivery: KafkaDelivery, message_id: UUID, address: str | None, repeatable: bool, again: bool
    ) -> Awaitable[bool]:
        tenure = delivery.tenure
        if not tenure.live or delivery.lost:
            return answered(False)
        again = again and self._outcomes.get(message_id) is None
        if not tenure.ids.admit(message_id, delivery.record, again=again):
            for sent in self._first_outcome(delivery, message_id, address):
                self._keep(sent)
            self._group.ended(delivery)
            return answered(False)
        delivery.message_id = message_id
        self._group.begins(delivery)
        if repeatable and delivery.attempt == 1:
            self._group.committer.soon()
            return answered(True)
        start = self._group.committer.ask(delivery)
        start.add_done_callback(lambda committed: self._started(delivery, committed))
        return start

    def _started(self, delivery: KafkaDelivery, committed: asyncio.Future[bool]) -> None:
        """Where the start was not committed, the record is delivered again, here or by whoever has its partition then."""
        if committed.cancelled() or committed.result():
            return
        self._group.given_back(delivery)
        self._does_not_run(delivery)
        asyncio.get_running_loop().call_later(AGAIN_AFTER, self._deliver_again, delivery)

    @staticmethod
    def _does_not_run(delivery: KafkaDelivery) -> None:
        if delivery.id is not None:
            delivery.tenure.ids.release(delivery.id, delivery.record)

    def _deliver_again(self, delivery: KafkaDelivery) -> None:
        if delivery.tenure.live and delivery.offset in delivery.tenure.progress.open:
            self._again(delivery.tenure, delivery.record)

    def _first_outcome(self, delivery: KafkaDelivery, message_id: UUID, address: str | None) -> list[asyncio.Future[Any]]:
        """For a further caller: now where it is there, else when it is; from the server that ran the call, if another."""
        if address is None:
            return []
        sent, first = self._outcome_for(message_id, address), delivery.tenure.ids.first(message_id, delivery.record)
        if not sent and first is not None and not self._group.runs_here(first):
            self._group.ask_others(message_id, address)
        return sent

    def _outcome_for(self, message_id: UUID, address: str) -> list[asyncio.Future[Any]]:
        kept = self._outcomes.get(message_id)
        if kept is not None:
            return [self._replies.send(kept, address)]
        self._outcomes.wait(message_id, address)
        return []

    def asked(self, message_id: UUID, address: str) -> None:
        """The owner of a call's partition does not know its outcome: we have it, or will have it, or it is none of ours."""
        if self._outcomes.get(message_id) is not None or self._group.holds(message_id):
            for sent in self._outcome_for(message_id, address):
                self._keep(sent)

    # when it has ended

    def settle(self, delivery: KafkaDelivery, reply: Reply | None) -> Awaitable[bool]:
        return self._end(delivery, lambda: [] if reply is None else self._reply(reply))

    def bury(
        self, delivery: KafkaDelivery, reason: str, reply: Reply | None, *, details: str, keep: bool, claim: bool
    ) -> Awaitable[bool]:
        def hand_over() -> list[asyncio.Future[Any]]:
            sent = [self._replies.bury(delivery, reason, details)]
            if reply is None:
                return sent
            if claim and not delivery.tenure.ids.admit(reply.message_id, delivery.record):
                return sent + self._first_outcome(delivery, reply.message_id, reply.address)
            return sent + (self._reply(reply) if keep else [self._replies.send(reply, reply.address)])

        return self._end(delivery, hand_over)

    def _reply(self, reply: Reply) -> list[asyncio.Future[Any]]:
        """Hand an outcome over: the first one of its id, to everybody who waits."""
        first = self._outcomes.get(reply.message_id)
        if first is None:
            first = reply
            self._outcomes.keep(reply)
        sent = [self._replies.send(first, reply.address)]
        sent += [self._replies.send(first, other) for other in self._outcomes.waiting(reply.message_id)]
        return sent

    def _end(self, delivery: KafkaDelivery, hand_over: Callable[[], list[asyncio.Future[Any]]]) -> Awaitable[bool]:
        if not self._begin_end(delivery):
            return answered(False)
        if not self._group.committer.is_stale:
            return self._hand_over(delivery, hand_over())
        return self._confirmed(delivery, lambda: self._hand_over(delivery, hand_over()))

    def _confirmed(self, delivery: KafkaDelivery, end: Callable[[], Awaitable[bool]]) -> asyncio.Future[bool]:
        """End it so only after a commit that goes through: that says that nobody else has decided.

        Where none does, Kafka may be away and this server a member still: that turns out when Kafka is back.
        """

        async def work() -> bool:
            while not await self._group.confirm():
                if not self._may_end(delivery):
                    return False
                await asyncio.sleep(AGAIN_AFTER)
            return self._may_end(delivery) and await end()

        return self._keep(background(work(), "prpc-kafka-confirm"))

    def _may_end(self, delivery: KafkaDelivery) -> bool:
        return not delivery.lost and (delivery.tenure.live or delivery.started)

    def _begin_end(self, delivery: KafkaDelivery) -> bool:
        """Whether it may end, and has not begun to."""
        may, delivery.ending = not delivery.ending and self._may_end(delivery), True
        return may

    def _hand_over(self, delivery: KafkaDelivery, sent: list[asyncio.Future[Any]]) -> asyncio.Future[bool]:
        if not sent:
            self._group.ended(delivery)
            return answered(True)
        turn, left = self._turns.now(), len(sent)
        turn.join()

        def arrived(future: asyncio.Future[Any]) -> None:
            nonlocal left
            left -= 1
            if not future.cancelled() and (error := future.exception()) is not None:
                log.error("an outcome could not be handed over: %s", error)
            if left == 0:
                self._group.ended(delivery)
                turn.leave()

        for future in sent:
            future.add_done_callback(arrived)
        if turn.done not in self._open:
            self._keep(turn.done)
        return turn.done

    def release(self, delivery: KafkaDelivery) -> Awaitable[bool]:
        if not self._begin_end(delivery):
            return answered(False)
        if not self._group.committer.is_stale:
            return self._give_back(delivery)
        return self._confirmed(delivery, lambda: self._give_back(delivery))

    def _give_back(self, delivery: KafkaDelivery) -> asyncio.Future[bool]:
        self._does_not_run(delivery)
        if self.stopping or delivery.tenure.leaving or not delivery.tenure.live:
            # One that was not started stays in our hands until its partition goes, or the record comes that continues it.
            if delivery.started:
                self._group.given_back(delivery)
            return answered(True)
        returning = delivery.tenure.returning
        sent = returning[delivery.offset] = self._replies.put_back(delivery)
        sent.add_done_callback(lambda _: returning.pop(delivery.offset))
        return self._hand_over(delivery, [sent])

    def _keep(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future
