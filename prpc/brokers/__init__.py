"""Brokers: how bytes get from one process to another. `create_broker` is the only door; the contract stands in `base`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from prpc.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prpc.brokers.base import Broker
    from prpc.settings import Settings

__all__ = ["adapter_of", "calls_age_by", "create_broker"]


def create_broker(settings: Settings) -> Broker:
    """The adapter that the settings name, not connected yet.

    Raises ConfigurationError where the URL cannot be used or there is no such adapter.
    """
    return adapter_of(settings.type_broker)(settings)


def adapter_of(type_broker: str) -> Callable[[Settings], Broker]:
    """The class for this kind of broker; its driver is loaded here and no earlier. Raises ConfigurationError."""
    if type_broker == "memory":
        from prpc.brokers.memory import MemoryBroker

        return MemoryBroker
    if type_broker == "redis":
        from prpc.brokers.redis import RedisBroker

        return RedisBroker
    if type_broker == "kafka":
        try:
            from prpc.brokers.kafka import KafkaBroker
        except ModuleNotFoundError as exc:
            text = 'PRPC_TYPE_BROKER=kafka needs the package aiokafka: pip install "prpc[kafka]"'
            raise ConfigurationError(text, variable="PRPC_TYPE_BROKER", value=type_broker) from exc
        return KafkaBroker
    raise ConfigurationError(
        f"PRPC_TYPE_BROKER={type_broker!r} cannot be used: allowed is one of redis, kafka and memory",
        variable="PRPC_TYPE_BROKER",
        value=type_broker,
    )


@contextmanager
def calls_age_by(clock: Callable[[], float], url: str) -> Iterator[None]:
    """For tests: within the block calls behind this memory:// URL age by `clock` (seconds)."""
    from prpc.brokers.memory_space import space_of

    space = space_of(url)
    space.count_calls_by(clock)
    yield
    del space  # held until here: a space that nobody holds is gone
