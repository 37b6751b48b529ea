"""What type checkers make of a user's tests; checked by test_client_types.py, never run."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import assert_type

import pytest

import prpc
from prpc.testing import (
    EagerClient,
    ManualClock,
    Running,
    ServerFactory,
    eager,
    installed_stubs,
    running,
    stubs_of,
)

app = prpc.AppServer("memory")


@pytest.fixture
def prpc_app() -> prpc.AppServer:
    return app


@pytest.fixture(params=[("memory", None), ("redis", "redis://localhost:6379/15")])
def client(request: pytest.FixtureRequest, prpc_server: ServerFactory) -> prpc.Client:
    type_broker, url = request.param
    return prpc_server(app, type_broker, url, use=True)


def test_calls(prpc_client: prpc.Client, prpc_eager: EagerClient, prpc_clock: ManualClock) -> None:
    assert_type(prpc_client.ping(), str)
    assert_type(prpc_eager.options(timeout=3), EagerClient)
    prpc_clock.advance("3")  # expect-error: argument type


def test_servers(prpc_server: ServerFactory, prpc_clock: ManualClock) -> None:
    assert_type(prpc_server(app), prpc.Client)
    prpc_server(app, "redis", "redis://localhost", queue="q", use=True, clock=prpc_clock)
    prpc_server("app")  # expect-error: argument type


async def test_coroutines() -> None:
    block = running(app, use=True, clock=ManualClock())
    assert_type(block, Running)
    async with block as client:
        assert_type(client, prpc.AsyncClient)
        assert_type(await client.ping(), str)
    with running(app) as plain:
        assert_type(plain, prpc.Client)


def after_a_block() -> Iterator[int]:
    with eager(app) as client:  # swallows nothing, so what follows is reached by one way only
        number = 1
    yield number
    assert_type(client, EagerClient)


def stubs() -> None:
    assert_type(stubs_of(app), ModuleType)
    with installed_stubs(app, "shop.server_func") as module:
        assert_type(module, ModuleType)
