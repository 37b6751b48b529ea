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
#: What load brings about without a fault.
NATURAL = frozenset({"QueueFullError"})


def promise_of(world: World) -> Promise:
    """What may be seen in this world."""
    options = world.options
    # By as much is wrong what a process believes of the broker's clock.
    skew = 5 * options.latency + options.drift * world.loop.now + 2.0 * ("slow" in options.noise)
    return Promise(plain=ALWAYS, idempotent=ALWAYS, natural=NATURAL, slack=0.1 + 125 * options.drift, aftermath=4.0, skew=skew)


def judge(world: World) -> list[str]:
    return [str(violation) for violation in Ledger(world.events).violations(promise_of(world))]
