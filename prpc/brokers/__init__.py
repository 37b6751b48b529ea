"""Brokers: how bytes get from one process to another. `create_broker` is the only door; the contract stands in `base`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prpc.exceptions import ConfigurationError

if TYPE_CHECKING:
    from prpc.brokers.base import Broker
    from prpc.settings import Settings

__all__ = ["create_broker"]


def create_broker(settings: Settings) -> Broker:
    """The adapter that the settings name, not connected yet; its driver is loaded here and no earlier.

    Raises ConfigurationError where the URL cannot be used or there is no such adapter.
    """
    if settings.type_broker == "memory":
        from prpc.brokers.memory import MemoryBroker

        return MemoryBroker(settings)
    if settings.type_broker == "redis":
        from prpc.brokers.redis import RedisBroker

        return RedisBroker(settings)
    raise ConfigurationError(
        f"PRPC_TYPE_BROKER={settings.type_broker!r} cannot be used: this version of PRPC serves redis and memory",
        variable="PRPC_TYPE_BROKER",
        value=settings.type_broker,
    )
