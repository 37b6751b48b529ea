"""The server's face without a broker: settings, registration, readiness."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta
from typing import Any

import pytest

from prpc.app_server import AppServer, Readiness
from prpc.exceptions import ConfigurationError, RegistrationError
from prpc.server.middleware import IncomingCall, Proceed


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("TYPE_BROKER", "URL_BROKER", "QUEUE_NAME", "MAX_NUMBER_WORKER", "DEFAULT_TYPE_WORKER", "TIMEOUT_WORKER_SEC"):
        monkeypatch.delenv(f"PRPC_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


def plain(a: int) -> int:
    return a


async def coroutine(a: int) -> int:
    return a


class Service:
    def plain(self) -> None: ...

    async def coroutine(self) -> None: ...


class TestSettings:
    def test_documented_positions_and_defaults(self) -> None:
        parameters = inspect.signature(AppServer).parameters
        documented = {
            "type_broker": None,
            "broker_url": None,
            "default_type_worker": "thread",
            "max_number_worker": 4,
            "timeout_worker": None,
            "name_queue": "task_prpc",
        }
        assert list(parameters)[:6] == list(documented)
        assert {name: parameters[name].default for name in documented} == documented
        assert parameters["group_name"].default == "prpc_group_consumers"
        assert "max_number_worker: int = 4" in str(inspect.signature(AppServer)).replace("'", "")

    def test_given_values(self) -> None:
        app = AppServer(
            "memory", "memory://x", "process", 7, timedelta(seconds=100), "orders", group_name="g", shutdown_grace=2.5
        )
        settings = app.settings
        assert (settings.type_broker, settings.url_broker, settings.queue_name) == ("memory", "memory://x", "orders")
        assert (settings.default_type_worker, settings.max_number_worker, settings.timeout_worker) == ("process", 7, 100.0)
        assert (settings.group_name, settings.shutdown_grace) == ("g", 2.5)
        assert AppServer("memory", timeout_worker=1.5).settings.timeout_worker == 1.5

    def test_the_environment_comes_before_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PRPC_QUEUE_NAME", "from_env")
        monkeypatch.setenv("PRPC_MAX_NUMBER_WORKER", "9")
        monkeypatch.setenv("PRPC_DEFAULT_TYPE_WORKER", "async")
        monkeypatch.setenv("PRPC_TYPE_BROKER", "memory")
        settings = AppServer().settings
        assert (settings.queue_name, settings.max_number_worker, settings.default_type_worker) == ("from_env", 9, "async")
        assert settings.type_broker == "memory"

    def test_what_is_given_comes_before_the_environment_even_where_it_equals_the_default(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PRPC_QUEUE_NAME", "from_env")
        monkeypatch.setenv("PRPC_MAX_NUMBER_WORKER", "9")
        settings = AppServer("memory", None, "thread", 4, None, "task_prpc").settings
        assert (settings.queue_name, settings.max_number_worker) == ("task_prpc", 4)

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"type_broker": "rabbit"}, "PRPC_TYPE_BROKER='rabbit' cannot be used"),
            ({"max_number_worker": 0}, "PRPC_MAX_NUMBER_WORKER='0' cannot be used"),
            ({"default_type_worker": "fiber"}, "PRPC_DEFAULT_TYPE_WORKER='fiber'"),
            ({"name_queue": "two words"}, "'two words'"),
        ],
    )
    def test_wrong_values_are_named(self, arguments: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            AppServer(**arguments)
        assert text in str(caught.value)

    def test_an_unknown_setting_is_an_error(self) -> None:
        with pytest.raises(TypeError, match="colour"):
            AppServer("memory", colour="red")  # type: ignore[call-arg]

    def test_repr_shows_no_url(self) -> None:
        app = AppServer("redis", "redis://user:geheim@host/0")
        assert repr(app) == "AppServer('redis', queue='task_prpc', functions=0)"
        assert "geheim" not in repr(app.settings)


class TestRegistration:
    def test_the_decorator_gives_the_function_itself(self) -> None:
        app = AppServer("memory")
        assert app.decorator_reg_func()(plain) is plain
        assert app.function("async", name="other", timeout=5, idempotent=True)(coroutine) is coroutine
        first, second = app.functions
        assert (first.name, first.kind.value, first.timeout, first.idempotent) == ("plain", "thread", None, False)
        assert (second.name, second.kind.value, second.timeout, second.idempotent) == ("other", "async", 5.0, True)

    def test_the_decorator_works_without_parentheses(self) -> None:
        app = AppServer("memory")
        assert app.function(plain) is plain
        assert [f.name for f in app.functions] == ["plain"]

    def test_register_funcs(self) -> None:
        app = AppServer("memory", default_type_worker="async")
        app.register_funcs(plain, worker_type="thread")
        app.register_func(coroutine)
        assert [(f.name, f.kind.value) for f in app.functions] == [("plain", "thread"), ("coroutine", "async")]

    @pytest.mark.parametrize(
        ("default", "given", "kind"), [("thread", None, "thread"), ("async", None, "thread"), ("process", "thread", "thread")]
    )
    def test_register_service(self, default: str, given: str | None, kind: str) -> None:
        app = AppServer("memory", default_type_worker=default)
        app.register_service(Service(), prefix="shop.", worker_type=given)
        assert [(f.name, f.kind.value) for f in app.functions] == [("shop.plain", kind), ("shop.coroutine", "async")]

    def test_mismatch_names_the_function(self) -> None:
        with pytest.raises(RegistrationError, match="'coroutine'"):
            AppServer("memory").decorator_reg_func()(coroutine)

    def test_two_of_one_name(self) -> None:
        app = AppServer("memory")
        app.register_func(plain)
        with pytest.raises(RegistrationError, match="'plain' is registered twice"):
            app.register_func(plain)

    def test_add_middleware_is_a_decorator(self) -> None:
        app = AppServer("memory")

        async def middleware(call: IncomingCall, proceed: Proceed) -> Any:
            return await proceed(call)

        assert app.add_middleware(middleware) is middleware


class TestReadiness:
    def test_waiters_see_it_become_ready(self) -> None:
        async def scenario() -> None:
            ready = Readiness()
            waiters = [asyncio.ensure_future(ready.wait()), asyncio.ensure_future(ready.wait())]
            await asyncio.sleep(0)
            waiters[1].cancel()
            assert not ready.is_set()
            ready.change(True)
            await waiters[0]
            await ready
            assert ready.is_set()

        asyncio.run(scenario())

    def test_waiters_see_a_failed_start(self) -> None:
        async def scenario() -> None:
            ready = Readiness()
            waiter = asyncio.ensure_future(ready.wait())
            await asyncio.sleep(0)
            ready.change(False, OSError("no"))
            with pytest.raises(OSError, match="no"):
                await waiter
            with pytest.raises(OSError, match="no"):
                await ready

        asyncio.run(scenario())

    def test_stop_without_serve_does_nothing(self) -> None:
        asyncio.run(AppServer("memory").stop())
