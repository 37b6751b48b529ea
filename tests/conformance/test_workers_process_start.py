"""How process workers start, from scripts of every shape, and how everything ends with the server."""

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import worker_jobs
from worker_kit import Meeting, make_job, run, soon, started, worker_processes

import prpc.workers.process
import prpc.workers.process_control
import prpc.workers.process_wire
import prpc.workers.process_worker
from prpc.exceptions import RegistrationError, ServerShutdownError
from prpc.settings import Settings
from prpc.workers import create_pool, process_keeper
from prpc.workers.base import PoolState, WorkerKind

ROOT = Path(__file__).parents[2]
METHODS = ["forkserver", "spawn"]

#: A server in small: functions of the script itself, registered by a decorator that returns the function.
SERVER = """
import asyncio, contextvars, os, sys
from dataclasses import dataclass
from prpc.settings import Settings
from prpc.workers import create_pool
from prpc.workers.base import Job, WorkerKind
import helper_beside_the_script

functions = []

def register(function):
    functions.append(function)
    return function

@dataclass
class Point:
    x: int

class Refused(Exception):
    pass

@register
def double(point: Point) -> Point:
    return Point(point.x * helper_beside_the_script.TWO)

@register
def refuse():
    raise Refused("no")

@register
def meet(path):
    return helper_beside_the_script.meet(path)

@register
def arguments():
    return sys.argv, __name__, os.getpid()

def job(function, *args):
    return Job("m", function.__name__, function, args, {}, None, contextvars.copy_context(), {})

async def serve(method, path=None):
    pool = create_pool(WorkerKind.PROCESS, 2, Settings(process_start_method=method), functions=functions)
    await pool.start()
    if path:
        pool.submit(job(meet, path))
        await asyncio.Event().wait()
    value = (await pool.submit(job(double, Point(4))).outcome).value
    print(value, isinstance(value, Point))
    failure = (await pool.submit(job(refuse)).outcome).failure
    print(failure.type_name, "__mp_main__" in failure.traceback)
    argv, name, pid = (await pool.submit(job(arguments)).outcome).value
    print(argv == sys.argv, name, pid != os.getpid())
    await pool.stop()
"""
GUARDED = (
    SERVER
    + """
sys.stdout.write(f"imported as {__name__}\\n")
if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
"""
)
UNGUARDED = (
    SERVER
    + """
asyncio.run(serve(*sys.argv[1:]))
"""
)
HELPER = """
from worker_jobs import meet
TWO = 2
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "helper_beside_the_script.py").write_text(HELPER)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "server.py").write_text(GUARDED)
    (tmp_path / "shop" / "__main__.py").write_text(GUARDED)
    (tmp_path / "guarded.py").write_text(GUARDED)
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    return tmp_path


def environment(folder):
    path = os.pathsep.join(map(str, (ROOT, Path(__file__).parent, folder)))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def run_script(folder, *command, cwd=None):
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=cwd or folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["script", "elsewhere", "module"])
def test_functions_of_the_script_itself(folder, method, way):
    command = {"script": ["guarded.py"], "elsewhere": [str(folder / "guarded.py")], "module": ["-m", "shop.server"]}[way]
    cwd = "/" if way == "elsewhere" else None
    result = run_script(folder, *command, method, cwd=cwd)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    imports = [line for line in lines if line.startswith("imported as")]
    assert imports == ["imported as __main__"] + ["imported as __mp_main__"] * (1 if method == "forkserver" else 2)
    assert [line for line in lines if line not in imports] == [
        "Point(x=8) True",
        "__main__.Refused False",
        "True __mp_main__ True",
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_script_without_the_guard_is_told_so(folder, method):
    result = run_script(folder, "unguarded.py", method)
    assert result.returncode == 1 and 'if __name__ == "__main__":' in result.stderr
    assert "RegistrationError: process workers cannot start" in result.stderr


def test_functions_that_no_child_can_import_again(folder):
    result = run_script(folder, "-m", "shop", "spawn")
    assert result.returncode == 1 and "a package's __main__.py cannot be imported again" in result.stderr
    result = run_script(folder, "-c", GUARDED, "spawn")
    assert result.returncode == 1 and "an interactive session and not to a file" in result.stderr


@pytest.mark.parametrize("method", METHODS)
def test_nothing_outlives_a_server_that_is_killed(folder, method):
    async def go():
        async with Meeting() as meeting:
            server = await asyncio.create_subprocess_exec(
                sys.executable, "guarded.py", method, meeting.path, cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL
            )
            guest = await meeting.guest()
            family = psutil.Process(server.pid).children(recursive=True)
            assert len(family) == 3  # the keeper and two workers
            server.kill()
            await server.wait()
            await guest.end()
            gone, alive = await asyncio.to_thread(psutil.wait_procs, family, 30)
            assert not alive and len(gone) == 3

    run(go())


def test_grandchildren_do_not_outlive_a_server_that_is_killed(folder):
    (folder / "helper_beside_the_script.py").write_text("from worker_jobs import family as meet\nTWO = 2\n")

    async def go():
        async with Meeting() as meeting:
            command = [sys.executable, "guarded.py", "auto", meeting.path]
            server = await asyncio.create_subprocess_exec(
                *command, cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL
            )
            guests = await meeting.guests(4)
            server.kill()
            await server.wait()
            for guest in guests.values():
                await guest.end()

    run(go())


def test_a_signal_to_the_servers_group_leaves_the_workers_to_the_server(folder):
    """Ctrl-C in a terminal, or systemd's SIGTERM to the keeper."""

    async def go():
        async with Meeting() as meeting, started("process", 1, functions=[worker_jobs.add]) as pool:
            execution = pool.submit(make_job(worker_jobs.meet, meeting.path))
            guest = await meeting.guest()
            keeper = psutil.Process(guest.pid).parent()
            for process, number in (
                (keeper, signal.SIGTERM),
                (keeper, signal.SIGINT),
                (psutil.Process(guest.pid), signal.SIGINT),
            ):
                process.send_signal(number)
            guest.let_go("unmoved")
            assert (await soon(execution.outcome)).value == "unmoved"

    run(go())


# Imports that go wrong.


def make_module(folder, monkeypatch, name, text):
    """A module whose import behaves differently in the server and in its children."""
    monkeypatch.syspath_prepend(str(folder))
    head = f"import os\nSERVER = {os.getpid()}\nIN_CHILD = os.getpid() != SERVER\n"
    (folder / f"{name}.py").write_text(head + textwrap.dedent(text) + "\ndef work():\n    return os.getpid()\n")
    return __import__(name).work


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("if IN_CHILD:\n    raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("if IN_CHILD:\n    raise SystemExit(4)", "SystemExit: 4"),
        ("if IN_CHILD:\n    os._exit(5)", "5"),
    ],
)
def test_an_import_that_fails_in_the_child(tmp_path, monkeypatch, method, text, words, request):
    name = "module_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    work = make_module(tmp_path, monkeypatch, name, text)

    async def go():
        pool = create_pool(WorkerKind.PROCESS, 2, Settings(process_start_method=method), functions=[work])
        with pytest.raises(RegistrationError) as caught:
            await pool.start()
        assert words in str(caught.value) and "process workers cannot start" in str(caught.value)
        late = pool.submit(make_job(work))
        assert (await soon(late.outcome)).failure.type_name == "prpc.exceptions.ServerShutdownError"
        assert not worker_processes()

    run(go())


@pytest.mark.parametrize("method", METHODS)
def test_replacements_that_fail_are_tried_again_with_pauses(tmp_path, monkeypatch, caplog, method):
    """After the start the import fails while a file stands there."""
    monkeypatch.setattr(prpc.workers.process, "FIRST_BACKOFF", 0.01)
    stop = tmp_path / "stop"
    name = f"module_failing_{method}"
    # Threads at import keep the keeper from forking, so that each worker imports by itself.
    text = f"if IN_CHILD and os.path.exists({str(stop)!r}):\n    raise RuntimeError('not now')\n"
    if method == "forkserver":
        text += "import threading\nif IN_CHILD:\n    threading.Thread(target=threading.Event().wait, daemon=True).start()"
    work = make_module(tmp_path, monkeypatch, name, text)

    async def go():
        failed = asyncio.Event()
        handler = logging.Handler()
        handler.emit = lambda record: failed.set() if "could not be replaced" in record.getMessage() else None
        async with started("process", 1, functions=[work], process_start_method=method) as pool:
            logging.getLogger("prpc").addHandler(handler)
            try:
                first = await soon(pool.submit(make_job(work)).outcome)
                stop.touch()
                lost = pool.submit(make_job(worker_jobs.die, 1))
                assert (await soon(lost.outcome)).failure.facts["exit_code"] == 1
                following = pool.submit(make_job(work))
                async with asyncio.timeout(30):
                    await failed.wait()
                assert not lost.released.done() and pool.state() == PoolState(1, 1, 0, 1)
                stop.unlink()
                assert (await soon(following.outcome)).value != first.value
                assert lost.released.done()
            finally:
                logging.getLogger("prpc").removeHandler(handler)

    run(go())
    assert "RuntimeError: not now" in caplog.text
    if method == "forkserver":
        assert "start threads when imported" in caplog.text


def test_no_process_can_be_started(monkeypatch):
    async def go():
        pool = create_pool(WorkerKind.PROCESS, 1, Settings(), functions=[worker_jobs.add])
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(FileNotFoundError):
            await pool.start()

    run(go())


NO_FORK = """
import errno, os, sys
def refuse():
    raise OSError(errno.EAGAIN, "no")
os.fork = refuse
"""


def test_a_machine_that_has_room_for_no_more_processes(monkeypatch):
    real = process_keeper.command

    def command(*args):
        line = real(*args)
        code = line.index("-c") + 1
        return [*line[:code], NO_FORK + line[code], *line[code + 1 :]]

    monkeypatch.setattr(process_keeper, "command", command)

    async def go():
        pool = create_pool(WorkerKind.PROCESS, 1, Settings(process_start_method="forkserver"), functions=[worker_jobs.add])
        with pytest.raises(RegistrationError, match="no process could be started: Resource temporarily unavailable"):
            await pool.start()

    run(go())


@pytest.mark.parametrize("missing", ["pipe", "socket"])
def test_a_machine_that_has_room_for_no_more_pipes_for_a_while(monkeypatch, caplog, missing):
    monkeypatch.setattr(prpc.workers.process, "FIRST_BACKOFF", 0.01)
    module, name = (prpc.workers.process_wire.os, "pipe") if missing == "pipe" else (prpc.workers.process_worker, "socket_pair")
    real, refusals = getattr(module, name), []

    def refuse_twice(*args):
        if len(refusals) < 2:
            refusals.append(args)
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*args)

    async def go():
        async with started("process", 1, functions=[worker_jobs.add, worker_jobs.die]) as pool:
            assert (await soon(pool.submit(make_job(worker_jobs.add, 1, 2)).outcome)).value == 3
            descriptors = psutil.Process().num_fds()
            monkeypatch.setattr(module, name, refuse_twice)
            lost = pool.submit(make_job(worker_jobs.die, 1))
            assert (await soon(lost.outcome)).failure.type_name == "prpc.exceptions.WorkerLostError"
            await soon(lost.released)
            assert len(refusals) == 2
            assert (await soon(pool.submit(make_job(worker_jobs.add, 1, 2)).outcome)).value == 3
            assert psutil.Process().num_fds() == descriptors

    run(go())
    assert caplog.text.count("no pipes could be made for it") == 2


def test_a_keeper_that_does_not_answer_is_killed(monkeypatch):
    monkeypatch.setattr(prpc.workers.process_control, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(prpc.workers.process, "GRACE_SECONDS", 0.1)

    async def go():
        async with Meeting() as meeting:
            async with started("process", 1, functions=[worker_jobs.add]) as pool:
                pool.submit(make_job(worker_jobs.meet, meeting.path))
                guest = await meeting.guest()
                psutil.Process(guest.pid).parent().suspend()
            await guest.end()

    run(go())


def test_stopping_a_pool_while_its_workers_import(tmp_path, monkeypatch):
    """The module says when it is being imported."""

    async def go():
        async with Meeting() as meeting:
            text = f"if IN_CHILD:\n    import worker_jobs\n    worker_jobs.meet({meeting.path!r})"
            work = make_module(tmp_path, monkeypatch, "module_meeting", text)
            pool = create_pool(WorkerKind.PROCESS, 1, Settings(process_start_method="spawn"), functions=[work])
            starting = asyncio.ensure_future(pool.start())
            guest = await meeting.guest()
            await pool.stop()
            with pytest.raises(ServerShutdownError):
                await soon(starting)
            await guest.end()

    run(go())


def test_stopping_a_pool_that_is_starting(tmp_path, monkeypatch):
    work = make_module(tmp_path, monkeypatch, "module_slow", "if IN_CHILD:\n    import time\n    time.sleep(60)")

    async def go():
        pool = create_pool(WorkerKind.PROCESS, 1, Settings(process_start_method="spawn"), functions=[work])
        starting = asyncio.ensure_future(pool.start())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await pool.stop()
        with pytest.raises((ServerShutdownError, RegistrationError)):
            await soon(starting)
        pool = create_pool(WorkerKind.PROCESS, 1, Settings(process_start_method="forkserver"), functions=[work])
        starting = asyncio.ensure_future(pool.start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not worker_processes()

    run(go())


def test_levels_of_the_servers_loggers_are_the_workers(caplog):
    logging.getLogger("worker_jobs").setLevel(logging.ERROR)
    try:

        async def go():
            async with started("process", 1, functions=[worker_jobs.add]) as pool:
                assert (await soon(pool.submit(make_job(worker_jobs.log_and_print, "x")).outcome)).failure is None

        run(go())
    finally:
        logging.getLogger("worker_jobs").setLevel(logging.NOTSET)
    assert [record.levelname for record in caplog.records if record.name == "worker_jobs"] == ["ERROR"]
