"""`running` serves an app on every broker alike, on a queue of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from prpc.app_client import Client
from prpc.app_server import AppServer
from prpc.settings import Settings
from prpc.testing import running


@pytest.fixture
def place(broker_kind: str, settings_for: Callable[..., Settings]) -> tuple[str, str | None]:
    """Type and address, as a user gives them."""
    settings = settings_for(broker_kind)
    return settings.type_broker, None if settings.type_broker == "memory" else settings.url_broker


@pytest.fixture
def app() -> AppServer:
    app = AppServer("redis", "redis://nobody.invalid:1/0", kafka_queue_partitions=4)

    @app.function
    def half(number: int) -> float:
        if number < 0:
            raise ValueError("below zero")
        return number / 2

    return app


def test_plain_code(app: AppServer, place: tuple[str, str | None]) -> None:
    before = app.settings
    with running(app, *place, use=True) as client:
        assert client.call("half", 3).result(30) == 1.5
        with pytest.raises(ValueError, match="below zero"):
            client.call("half", -1).result(30)
        assert (client.queue == before.queue_name) == (place[0] == "memory")
    assert app.settings is before


def test_coroutines_and_a_named_queue(app: AppServer, place: tuple[str, str | None], queue: str) -> None:
    async def scenario() -> list[float]:
        async with running(app, *place, queue=queue) as client:
            assert client.queue == queue
            with Client(app.settings.type_broker, app.settings.url_broker, queue) as other:
                return [await client.call("half", 3), await other.call("half", 5)]

    assert asyncio.run(scenario()) == [1.5, 2.5]
