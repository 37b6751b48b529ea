"""The client of calls that name none, replaced for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prpc.app_client import AsyncClient, Client
from prpc.client.channel import swap_default_channel

__all__ = ["default_client"]


@contextmanager
def default_client(client: Client | AsyncClient) -> Iterator[None]:
    """Within the block calls that name no client go through this one; then the former one is back."""
    former = swap_default_channel(client.channel)
    try:
        yield
    finally:
        swap_default_channel(former)
