"""Tests with neither a broker nor a server: `python -m pytest -q`."""

from collections.abc import Iterator

import pytest
from server import Order, app, price

from prpc import Client
from prpc.testing import running


@pytest.fixture
def client() -> Iterator[Client]:
    """The server in memory: the same codec and the same workers, another broker."""
    with running(app) as client:
        yield client


def test_logic() -> None:
    assert price(Order("tea", 2)) == 5.0  # a registered function is still a plain one


def test_over_the_wire(client: Client) -> None:
    assert client.call("price", Order("tea", 2)).result(timeout=20) == 5.0


def test_errors_over_the_wire(client: Client) -> None:
    with pytest.raises(ValueError, match="count must be"):
        client.call("price", Order("tea", 0)).result(timeout=20)
