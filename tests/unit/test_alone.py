"""The loop of a server that has its process to itself."""

from __future__ import annotations

import asyncio
import sys

import pytest

from prpc.app_server import AppServer
from prpc.exceptions import ConfigurationError
from prpc.server.alone import run_alone
from prpc.settings import Settings


async def module_of_the_loop() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@pytest.mark.parametrize(("asked", "got"), [("asyncio", "asyncio"), ("uvloop", "uvloop"), ("auto", "uvloop")])
def test_the_loop_that_is_asked_for(asked: str, got: str) -> None:
    assert run_alone(module_of_the_loop, Settings(event_loop=asked)) == got


def test_where_uvloop_is_not_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run_alone(module_of_the_loop, Settings(event_loop="auto")) == "asyncio"
    with pytest.raises(ConfigurationError, match=r"PRPC_EVENT_LOOP.*pip install 'prpc\[uvloop\]'") as caught:
        run_alone(module_of_the_loop, Settings(event_loop="uvloop"))
    assert (caught.value.variable, caught.value.value) == ("PRPC_EVENT_LOOP", "uvloop")
    with pytest.raises(SystemExit) as left:
        AppServer("memory", event_loop="uvloop").start()
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("prpc: PRPC_EVENT_LOOP='uvloop' cannot be used")
