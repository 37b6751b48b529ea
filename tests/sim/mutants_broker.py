"""Mutants of the simulated broker and of its adapter: promises of prpc/brokers/base.py that it does not keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.sim.consumer import SimConsumer, SimDelivery
from tests.sim.mutants import Patch, mutant, nothing
from tests.sim.store import Store


@mutant("publishing recognises the second entry of one id")
def doubles_are_published(patch: Patch) -> None:
    patch.set(Store, "_known", lambda self, queue, message_id, now: None)


@mutant("a claim is refused where another entry of the id came first")
def every_claim_is_granted(patch: Patch) -> None:
    patch.set(Store, "_may_run", lambda self, queue, given, message_id, window: True)


@mutant("only the owner of an entry may settle it")
def settling_is_not_fenced(patch: Patch) -> None:
    patch.set(
        Store, "owns", lambda self, queue, given: given.entry.number in queue.entries and given.entry.number in queue.holders
    )


@mutant("the first outcome is kept, whatever comes later")
def the_last_outcome_is_kept(patch: Patch) -> None:
    def answer(old: Any, self: Store, queue: Any, reply: Any, seconds: float) -> None:
        queue.kept.pop((reply.message_id, reply.raw), None)
        old(self, queue, reply, seconds)

    patch.around(Store, "_answer", answer)


@mutant("outcomes are kept for those who missed the mail")
def outcomes_are_not_kept(patch: Patch) -> None:
    patch.around(Store, "_answer", lambda old, self, queue, reply, seconds: old(self, queue, reply, 0.0))


@mutant("what a lost server held is taken over")
def nothing_is_taken_over(patch: Patch) -> None:
    patch.set(Store, "reclaim", lambda self, name, consumer, server: [])


@mutant("only what a lost server held is taken over")
def everything_is_taken_over(patch: Patch) -> None:
    def reclaim(self: Store, name: str, consumer: str, server: str) -> Any:
        queue = self.queue(name)
        found = [number for number, holder in queue.holders.items() if holder != consumer]
        return [self._give(queue, number, consumer, server) for number in found]

    patch.set(Store, "lapsed", lambda self, name, consumer: [each for each in self.queue(name).leases if each != consumer])
    patch.set(Store, "reclaim", reclaim)


@mutant("an entry that is given out again says so")
def attempts_are_not_counted(patch: Patch) -> None:
    patch.around(Store, "_given", lambda old, self, *rest: replace(old(self, *rest), attempt=1))
    patch.set(Store, "owns", lambda self, queue, given: queue.names.get(given.entry.number) == given.name)


@mutant("an entry that was given back does not count as given out")
def a_release_counts_as_an_attempt(patch: Patch) -> None:
    def release(old: Any, self: Store, name: str, given: Any) -> bool:
        done: bool = old(self, name, given)
        if done:
            self.queue(name).attempts[given.entry.number] += 1
        return done

    patch.around(Store, "release", release)


@mutant("a lease is renewed for as long as its server lives")
def the_lease_is_renewed_once(patch: Patch) -> None:
    async def keep(self: SimConsumer) -> None:
        await self._renew()

    patch.set(SimConsumer, "_keep", keep)


@mutant("what was given out on a connection that broke is looked for")
def what_a_broken_read_took_is_lost(patch: Patch) -> None:
    patch.set(SimConsumer, "_doubt", lambda self: self._link.connection and self._link.connection.give_up())


@mutant("an entry's age counts from when the broker took it")
def entries_have_no_age(patch: Patch) -> None:
    patch.around(SimDelivery, "__init__", lambda old, self, consumer, given, age: old(self, consumer, given, 0.0))


@mutant("others who sent the same call get its outcome, too")
def who_comes_second_gets_no_outcome(patch: Patch) -> None:
    patch.set(Store, "_first_outcome", nothing)
