"""Stubs of an app without a file: what the generator would write, as a module."""

from __future__ import annotations

import importlib
import pickle
import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest

import prpc
import prpc.create_server_func as command
from prpc.app_server import AppServer
from prpc.testing import eager, installed_stubs, running, stubs_of


@dataclass
class Line:
    item: str
    count: int = 1


@dataclass
class Order:
    lines: list[Line] = field(default_factory=list)


def order(items: list[str], /, *, count: int = 1) -> Order:
    """Makes an order."""
    return Order([Line(item, count) for item in items])


@pytest.fixture
def app() -> AppServer:
    app = AppServer("memory")
    app.register_func(order)
    app.register_func(order, name="shop.order")
    return app


def test_they_are_those_of_the_generator(app: AppServer, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    with running(app, use=True):
        assert command.main([]) == 0
    with open("server_func.py", encoding="utf-8") as file:
        written = file.read()
    stubs = stubs_of(app)
    assert stubs.__loader__ is None and stubs.SERVER_SCHEMA in written
    names: dict[str, object] = {}
    exec(written, names)
    assert set(names["__all__"]) == set(stubs.__all__)  # type: ignore[call-overload]


def test_they_call_the_default_client(app: AppServer) -> None:
    stubs = stubs_of(app)
    for block in (running(app, use=True), eager(app, use=True)):
        with block:
            found = stubs.order(["tea", "milk"], count=2).result()
            assert found == stubs.Order([stubs.Line("tea", 2), stubs.Line("milk", 2)])
            assert stubs.shop_order(["tea"]).result() == stubs.Order([stubs.Line("tea")])
            assert stubs.ping().result() == "pong"
            with pytest.raises(prpc.BadArgumentsError):
                stubs.order(7).result()


def test_the_same_functions_give_the_same_module(app: AppServer) -> None:
    stubs = stubs_of(app)
    assert stubs_of(app) is stubs is sys.modules[stubs.__name__]
    assert pickle.loads(pickle.dumps(stubs.Order([stubs.Line("tea")]))) == stubs.Order([stubs.Line("tea")])
    assert pickle.loads(pickle.dumps(stubs.order)) is stubs.order
    app.register_func(len, name="length")
    assert stubs_of(app) is not stubs and hasattr(stubs_of(app), "length")


def test_they_can_be_imported_within_a_block(app: AppServer) -> None:
    assert "server_func" not in sys.modules
    with installed_stubs(app) as stubs, eager(app, use=True):
        import server_func

        assert server_func is stubs and stubs.__name__ == "server_func"
        assert server_func.order(["tea"]).result() == stubs.Order([stubs.Line("tea")])
        with installed_stubs(AppServer("memory")) as others:
            assert sys.modules["server_func"] is others and not hasattr(others, "order")
        assert sys.modules["server_func"] is stubs
    assert "server_func" not in sys.modules
    with pytest.raises(KeyError), installed_stubs(app):
        raise KeyError
    assert "server_func" not in sys.modules


def test_a_package_lends_its_member(app: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, old = ModuleType("shop_of_a_test"), ModuleType("shop_of_a_test.server_func")
    shop.__path__ = []
    monkeypatch.setitem(sys.modules, "shop_of_a_test", shop)
    with installed_stubs(app, "shop_of_a_test.server_func") as stubs:
        assert importlib.import_module("shop_of_a_test.server_func") is stubs
        assert shop.server_func is stubs
    assert not hasattr(shop, "server_func")
    monkeypatch.setitem(sys.modules, old.__name__, old)
    shop.server_func = old  # type: ignore[attr-defined]
    with installed_stubs(app, old.__name__) as stubs:
        assert shop.server_func is stubs
    assert shop.server_func is old and sys.modules[old.__name__] is old


def test_nothing_is_left_of_stubs_that_cannot_be_made(app: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prpc.testing.stubs.generate", lambda *_, **__: "raise OSError('no')")
    before = set(sys.modules)
    with pytest.raises(OSError, match="no"):
        stubs_of(app)
    with pytest.raises(OSError, match="no"), installed_stubs(app):
        pass
    assert set(sys.modules) == before
