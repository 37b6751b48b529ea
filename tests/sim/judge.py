"""From a world's events to its violations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.ledger.ledger import Ledger, Promise

if TYPE_CHECKING:
    from tests.sim.world import World

__all__ = ["judge", "promise_of"]

ALWAYS = frozenset(
    {
        "WorkerLostError",
        "ServerShutdownError",
        "BrokerUnavailableError",
        "ClientTimeOutError",
        "CallCancelledError",
        "QueueFullError",
    }
)
#: Of a call that may run twice: it goes back to the queue where its server stops.
TWICE = ALWAYS - {"ServerShutdownError"}
#: Seconds in which a caller finds that its mailbox was cut off, and looks for what it missed.
HANDED_OVER = 20.0
#: Seconds of the pauses between all attempts of a call, at least (World.settings).
REPEATED = 2.5
#: Seconds without a word after which a server begins to give a reader up, less what a beat takes.
LOST_AFTER = 1.0
#: What load brings about without a fault.
NATURAL = frozenset({"QueueFullError"})


def promise_of(world: World) -> Promise:
    """What may be seen in this world, and within what time."""
    options = world.options
    # By as much is wrong what a process believes of the broker's clock.
    skew = 5 * options.latency + options.drift * world.loop.now + 2.0 * ("slow" in options.noise)
    way = 20 * options.latency + 0.3
    if not options.exact:
        slack = 0.1 + 125 * options.drift
        return Promise(
            *(ALWAYS, TWICE, NATURAL),
            slack=slack,
            aftermath=4.0,
            skew=skew,
            outcome_within=HANDED_OVER,
            repeated_for=REPEATED,
            attempts=world.settings.max_deliveries,
            items_lost_after=LOST_AFTER,
        )
    stood = any(event["event"] == "fault" and event.get("stops") for event in world.events)
    gone = sum(fault in ("kill", "stop") for fault in options.faults) + bool(options.armed)
    # Somebody is there at all times who has no other trouble.
    # On Kafka a server whose slots are all busy holds up the calls in its partitions (docs/explanation/guarantees.md).
    held_up = options.broker == "kafka" and options.calls > options.slots
    told = None if stood or held_up or gone >= options.servers else options.recover + options.heartbeat + way
    return Promise(
        ALWAYS,
        TWICE,
        NATURAL,
        slack=0.1,
        aftermath=4.0 if stood else 2.0,
        told_within=told,
        lease=options.recover - 0.01,
        skew=skew,
        stream_end=None if stood else world.settings.stream_reader_timeout + 3.0 + way,
        stream_left=None if stood else 2.0 + way,
        cancelled_within=1.0 + way,
        outcome_within=HANDED_OVER,
        repeated_for=REPEATED,
        attempts=world.settings.max_deliveries,
        items_lost_after=LOST_AFTER,
        exact=True,
    )


def judge(world: World) -> list[str]:
    return [str(violation) for violation in Ledger(world.events).violations(promise_of(world))]
