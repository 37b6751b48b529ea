"""Mutants of the simulated Kafka and of the adapter over it: what its rules (kafka_store.py) no longer hold."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from tests.sim.consumer import SimConsumer
from tests.sim.held import Given
from tests.sim.kafka_store import KafkaStore
from tests.sim.mutants import Patch, mutant
from tests.sim.sharing import SharingConsumer
from tests.sim.store import Store

on_kafka = partial(mutant, broker="kafka")


@on_kafka("a commit says which calls have begun, whoever gets their partition")
def starts_are_not_committed(patch: Patch) -> None:
    def claim(old: Any, self: KafkaStore, name: str, given: Given, *rest: Any, **more: Any) -> bool:
        granted: bool = old(self, name, given, *rest, **more)
        self.group(name).started.discard(given.entry.number)
        return granted

    patch.around(KafkaStore, "claim", claim)


@on_kafka("a start is committed by a member that still has the record, and one that waits long for it asks again")
def commits_are_not_fenced(patch: Patch) -> None:
    async def granted(self: SimConsumer, given: Given, work: Any) -> bool:
        return bool(await self.broker.link.insist("claim", work))

    patch.set(SimConsumer, "_claim", granted)

    def claim(old: Any, self: KafkaStore, name: str, given: Given, *rest: Any, **more: Any) -> bool:
        return bool(old(self, name, given, *rest, **more)) or given.entry.number in self.queue(name).entries

    patch.around(KafkaStore, "claim", claim)


@on_kafka("what a member had begun that is gone is taken over")
def what_a_gone_member_ran_stays_its_own(patch: Patch) -> None:
    def drop(old: Any, self: KafkaStore, name: str, consumer: str) -> None:
        started = set(self.group(name).started)
        old(self, name, consumer)
        for number in started - self.group(name).started:
            for line in (self.queue(name).waiting, self.queue(name).raw_waiting):
                if number in line:
                    line.remove(number)

    patch.around(KafkaStore, "_drop", drop)


@on_kafka("a member that was silent for a session is given up, and no other")
def members_are_given_up_at_once(patch: Patch) -> None:
    def renew(old: Any, self: KafkaStore, name: str, consumer: str, server: str, seconds: float, share: int) -> Any:
        return old(self, name, consumer, server, 1.1, share)

    patch.around(KafkaStore, "renew", renew)


@on_kafka("a partition's owner tells the further entries of a call")
def the_owner_tells_no_doubles(patch: Patch) -> None:
    def admit(self: KafkaStore, name: str, given: Given, message_id: UUID, window: float, again: bool) -> bool:
        return True

    patch.set(KafkaStore, "admit", admit)


@on_kafka("who comes back reads its mail from where it was")
def mail_that_was_missed_is_not_read(patch: Patch) -> None:
    def open_mail(old: Any, self: KafkaStore, name: str, address: str, position: int | None, take: Any) -> Any:
        del self._mail.setdefault(address, [])[position or 0 :]
        return old(self, name, address, position, take)

    patch.around(KafkaStore, "open_mail", open_mail)


@on_kafka("what was read under an earlier share is not started")
def an_earlier_share_counts(patch: Patch) -> None:
    patch.set(SharingConsumer, "_unread", lambda self: None)
    patch.set(KafkaStore, "_unread", lambda self, name, consumer: None)


@on_kafka("an end is committed once its outcome was handed over")
def ends_are_not_committed(patch: Patch) -> None:
    patch.set(KafkaStore, "finish", lambda self, name, given, how: False)


@on_kafka("records of a partition are given to its owner alone")
def everybody_reads_every_partition(patch: Patch) -> None:
    def take(self: KafkaStore, name: str, consumer: str, server: str, most: int) -> Any:
        self.group(name).shares.setdefault(consumer, 0)
        return Store.take(self, name, consumer, server, most)

    patch.set(KafkaStore, "take", take)
