"""The fixtures for pytest, as a user's project meets them: in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
#: What pytest is started with where PRPC is not installed with its entry point.
LOAD = ("-p", "prpc.pytest_plugin")
SHOP = """
from prpc import AppServer, current_call

app = AppServer("redis", "redis://nobody.invalid:1/0")

@app.function
def price(count: int) -> float:
    if count < 1:
        raise ValueError("count must be 1 or more")
    return 2.5 * count

@app.function
def left() -> float | None:
    return current_call().remaining()

@app.function("async", timeout=50)
async def wait() -> None:
    import asyncio
    await asyncio.Event().wait()
"""
INI = "[pytest]\nprpc_app = shop:app\npythonpath = .\nfilterwarnings = error\n"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(shop=SHOP)
    pytester.makefile(".ini", pytest=INI)
    return pytester


def check(project: pytest.Pytester, *options: str, **outcomes: int) -> pytest.RunResult:
    result = project.runpytest_subprocess("-p", "no:cacheprovider", *options)
    result.assert_outcomes(**outcomes)
    return result


def test_the_client_of_the_configured_app(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import asyncio, prpc, pytest, shop, threading

        def test_calls(prpc_client):
            assert prpc_client.call("price", 2).result(30) == 5.0
            with pytest.raises(ValueError, match="count must be"):
                prpc_client.call("price", 0).result(30)

        def test_stubs_go_there(prpc_client):
            assert prpc.AwaitableTask("price", [2]).result(30) == 5.0

        def test_coroutines(prpc_client):
            async def scenario():
                return await prpc.AwaitableTask("price", [2]), await prpc_client.call("price", 4)
            assert asyncio.run(scenario()) == (5.0, 10.0)

        def test_everything_is_put_back():
            assert shop.app.settings.type_broker == "redis"
            assert not [t for t in threading.enumerate() if t.name == "prpc-testing-server"]
        """
    )
    check(project, *LOAD, passed=4)


def test_eager_calls(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import prpc, pytest, threading

        def test_calls(prpc_eager):
            assert prpc_eager.call("price", 2).get_result() == 5.0
            assert prpc.AwaitableTask("price", [2]).get_result() == 5.0
            assert threading.active_count() == 1

        def test_its_clock(prpc_eager, prpc_clock):
            task = prpc_eager.options(timeout=5).call("price", 2)
            assert task.message.date_done_message == prpc_clock.now()
        """
    )
    check(project, *LOAD, passed=2)


def test_several_servers_and_an_app_of_the_users_own(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        import prpc, pytest

        @pytest.fixture
        def prpc_app():
            app = prpc.AppServer("memory")
            app.register_func(len, name="length")
            return app
        """
    )
    project.makepyfile(
        """
        import prpc, pytest, shop

        def test_several(prpc_server, prpc_client):
            other = prpc_server(shop.app, queue="mine")
            assert prpc_client.call("length", "abc").result(30) == 3
            assert other.call("price", 2).result(30) == 5.0
            assert (other.queue, prpc_client.queue) == ("mine", "task_prpc")
            assert prpc.AwaitableTask("length", ["abc"]).result(30) == 3
            with pytest.raises(prpc.FunctionNotFoundError):
                other.call("length", "abc").result(30)
        """
    )
    check(project, *LOAD, passed=1)


def test_servers_go_by_the_clock_of_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import prpc, pytest, shop

        def test_a_timeout(prpc_client, prpc_clock):
            task = prpc_client.options(timeout=30).call("wait")
            prpc_clock.advance(31)
            with pytest.raises(prpc.ClientTimeOutError):
                task.result()
            prpc_clock.advance(60)

        def test_a_server_started_by_hand(prpc_server, prpc_clock):
            client = prpc_server(shop.app)
            task = client.options(timeout=30).call("price", 1)
            assert task.result(30) == 2.5
            assert task.message.date_done_message == prpc_clock.now()

        def test_without_a_clock(prpc_client):
            assert 0 < prpc_client.options(timeout=30).call("left").result(30) <= 30
        """
    )
    check(project, *LOAD, passed=3)


def test_what_is_wrong_is_said_in_a_line(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(prpc_client): ...\ndef test_eager(prpc_eager): ...")
    project.makefile(".ini", pytest="[pytest]\n")
    result = check(project, *LOAD, errors=2)
    result.stdout.fnmatch_lines(["prpc_client and prpc_eager need an app: write prpc_app = module:name into*"])
    project.makefile(".ini", pytest=INI.replace("shop:app", "shop:shop"))
    result = check(project, *LOAD, errors=2)
    result.stdout.fnmatch_lines(["prpc_app: module 'shop' has no 'shop'; its AppServers are: app"])


ENTRY = "[pytest11]\nprpc = prpc.pytest_plugin\n"


@pytest.fixture
def installed(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project that finds the plugin by its entry point, as after `pip install prpc`."""
    folder = project.mkdir("site") / "entry_of_a_test-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: entry-of-a-test\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRY)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{folder.parent}")
    project.makepyfile("def test_it(prpc_client):\n    assert prpc_client.ping() == 'pong'\n")
    return project


@pytest.mark.parametrize("options", [(), LOAD, ("-p", "prpc")], ids=" ".join)
def test_the_entry_point_and_p_do_not_clash(installed: pytest.Pytester, options: tuple[str, ...]) -> None:
    check(installed, *options, passed=1)


def test_a_conftest_may_name_it_too(installed: pytest.Pytester) -> None:
    installed.makeconftest("pytest_plugins = ['prpc.pytest_plugin']")
    check(installed, passed=1)
    check(installed, *LOAD, passed=1)


def test_it_can_be_turned_off(installed: pytest.Pytester) -> None:
    installed.makefile(".ini", pytest="[pytest]\n")
    check(installed, "-p", "no:prpc", errors=1).stdout.fnmatch_lines(["*fixture 'prpc_client' not found*"])


def test_the_entry_point_is_declared() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\nprpc = "prpc.pytest_plugin"\n' in project


def test_unused_it_loads_nothing() -> None:
    code = "import sys, pytest\nbefore = set(sys.modules)\nimport prpc.pytest_plugin\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["prpc", "prpc.pytest_plugin"]


def test_prpc_does_without_pytest() -> None:
    code = "import sys\nsys.modules['pytest'] = None\nimport prpc.testing, prpc.__main__\nfrom prpc import *"
    subprocess.run([sys.executable, "-c", code], check=True)
