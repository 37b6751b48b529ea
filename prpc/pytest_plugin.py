"""pytest's fixtures for programs that use PRPC, there wherever both are installed.

Nothing of PRPC is loaded before a test asks for a fixture. `-p no:prpc` turns them off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from prpc.app_client import Client
    from prpc.app_server import AppServer
    from prpc.testing import EagerClient, ManualClock, Running, ServerFactory

__all__ = ["prpc_app", "prpc_client", "prpc_clock", "prpc_eager", "prpc_server"]

#: The name of the entry point, and that by which `-p` or `pytest_plugins` may name the module.
_NAMES = ("prpc", __name__)


def pytest_plugin_registered(plugin: object, plugin_name: str, manager: pytest.PytestPluginManager) -> None:
    """Two names for one plugin are an error to pytest: by whichever it comes first, the other one is taken for done."""
    if plugin_name in _NAMES and getattr(plugin, "__name__", None) == __name__:
        for name in _NAMES:
            if name != plugin_name:
                manager.set_blocked(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The line of the configuration that names the app."""
    parser.addini("prpc_app", "the AppServer of the fixtures prpc_client and prpc_eager, e.g. shop.server:app", default="")


@pytest.fixture
def prpc_app(pytestconfig: pytest.Config) -> AppServer:
    """The app that `prpc_app = module:name` names in pytest's configuration. Override it to make one otherwise."""
    target = pytestconfig.getini("prpc_app")
    if not target:
        pytest.fail(
            "prpc_client and prpc_eager need an app: write prpc_app = module:name into pytest's configuration, "
            "or a fixture prpc_app of your own",
            pytrace=False,
        )
    from prpc.__main__ import load_app
    from prpc.exceptions import ConfigurationError

    try:
        return load_app(target)
    except ConfigurationError as exc:
        pytest.fail(f"prpc_app: {exc}", pytrace=False)


@pytest.fixture
def prpc_clock() -> ManualClock:
    """A clock that is moved by hand. Where a test asks for it, the servers of the other fixtures go by it."""
    from prpc.testing import ManualClock

    return ManualClock()


@pytest.fixture
def prpc_server(request: pytest.FixtureRequest) -> Iterator[ServerFactory]:
    """`prpc_server(app)` serves an app until the test ends and gives its client; parameters as for `prpc.testing.running`."""
    from prpc.testing import running

    clock = _clock_of(request)
    with ExitStack() as stack:

        def serve(app: AppServer, *place: Any, **more: Any) -> Client:
            more.setdefault("clock", clock)
            block: Running = running(app, *place, **more)
            return stack.enter_context(block)

        yield serve


@pytest.fixture
def prpc_client(prpc_server: ServerFactory, prpc_app: AppServer) -> Client:
    """Client of `prpc_app`, which is served in memory until the test ends. Calls of stubs go there, too."""
    return prpc_server(prpc_app, use=True)


@pytest.fixture
def prpc_eager(request: pytest.FixtureRequest, prpc_app: AppServer) -> Iterator[EagerClient]:
    """Client of `prpc_app` whose calls run at once in the calling thread. Calls of stubs do so, too."""
    from prpc.testing import eager

    with eager(prpc_app, use=True, clock=_clock_of(request)) as client:
        yield client


def _clock_of(request: pytest.FixtureRequest) -> ManualClock | None:
    """The test's own clock, where it asks for one."""
    if "prpc_clock" not in request.fixturenames:
        return None
    clock: ManualClock = request.getfixturevalue("prpc_clock")
    return clock
