"""The generator's command: files, exit codes and one-line errors. The server is a real one, in memory."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import prpc.create_server_func as command
from prpc.app_client import use_client
from prpc.app_server import AppServer
from prpc.exceptions import BrokerUnavailableError, ClientTimeOutError, DecodeError, NoServerError, PRPCError
from prpc.testing import running


def summ(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("PRPC_"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def server() -> Iterator[None]:
    app = AppServer("memory")
    app.register_func(summ)
    with running(app) as client:
        use_client(client)
        try:
            yield
        finally:
            use_client(None)


@pytest.mark.usefixtures("server")
class TestWithAServer:
    def test_writes_the_file_and_says_so(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main([]) == 0
        text = (folder / "server_func.py").read_text()
        assert "def summ(a: int, b: int = 2) -> int:" in text and '"""Adds."""' in text
        out = capsys.readouterr().out
        assert out.startswith("wrote server_func.py: 2 functions, schema ") and out.count("\n") == 1
        assert list(folder.iterdir()) == [folder / "server_func.py"]

    def test_a_file_that_is_up_to_date_is_left_alone(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command.main([])
        before = (folder / "server_func.py").stat().st_ino
        assert command.main([]) == 0
        assert (folder / "server_func.py").stat().st_ino == before
        assert "is up to date: 2 functions" in capsys.readouterr().out

    def test_writes_where_it_is_told_and_keeps_permissions(self, folder: Path) -> None:
        target = folder / "deep" / "stubs.py"
        assert command.main(["--output", str(target)]) == 0
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
        target.write_text("old")
        target.chmod(0o640)
        assert command.main(["--output", str(target)]) == 0
        assert stat.S_IMODE(target.stat().st_mode) == 0o640 and "def summ" in target.read_text()

    def test_check_without_a_file(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["--check"]) == 1
        assert "server_func.py does not exist" in capsys.readouterr().out
        assert not list(folder.iterdir())

    def test_check_of_a_file_that_is_right(self, capsys: pytest.CaptureFixture[str]) -> None:
        command.main([])
        assert command.main(["--check"]) == 0
        assert "is up to date" in capsys.readouterr().out

    @pytest.mark.parametrize("change", [b"\n# mine\n", b"\n# line" * 100, b"\xff"])
    def test_check_of_a_file_that_is_old(self, folder: Path, capsys: pytest.CaptureFixture[str], change: bytes) -> None:
        command.main([])
        file = folder / "server_func.py"
        file.write_bytes(file.read_bytes() + change)
        old = file.read_bytes()
        capsys.readouterr()
        assert command.main(["--check"]) == 1
        out = capsys.readouterr().out
        assert file.read_bytes() == old
        if change == b"\xff":
            assert "does not exist" in out or "out of date" in out
        else:
            assert "out of date; the server has 2 functions" in out and "\n  -# " in out and out.count("\n") < 25

    @pytest.mark.parametrize(
        ("text", "code", "said"), [(None, 0, "is up to date by its"), ("0f", 1, "is out of date: its schema is 0f")]
    )
    def test_check_while_every_server_is_busy(
        self,
        text: str | None,
        code: int,
        said: str,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        command.main([])
        if text is not None:
            (folder / "server_func.py").write_text(f'SERVER_SCHEMA = "{text}"\n')
        capsys.readouterr()

        def busy(*, timeout: object) -> None:
            raise ClientTimeOutError("all are busy")

        monkeypatch.setattr(command, "get_function_server", busy)
        assert command.main(["--check"]) == code
        assert said in capsys.readouterr().out

    def test_a_place_that_cannot_be_written(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "taken").write_text("")
        assert command.main(["--output", "taken/stubs.py"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("create_server_func: taken/stubs.py cannot be") and error.count("\n") == 1

    def test_a_failed_write_leaves_the_old_file(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "server_func.py").write_text("old")

        def fail(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", fail)
        assert command.main([]) == 2
        assert [file.read_text() for file in folder.iterdir()] == ["old"]


ERRORS: list[tuple[PRPCError, str]] = [
    (NoServerError("nobody"), "no server serves the queue 'task_prpc' at redis://localhost:6379/0 now: start it"),
    (ClientTimeOutError("late"), "no server of the queue 'task_prpc' at redis://localhost:6379/0 answered within 30 s: start it"),
    (BrokerUnavailableError("Redis at redis://x does not answer"), "the broker cannot be reached: Redis at redis://x"),
    (DecodeError("'f' is refused:\nx"), "the server's answer was refused: 'f' is refused: x"),
    (PRPCError("anything"), "PRPCError: anything"),
]


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_one_line(
    error: PRPCError, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(timeout: object) -> None:
        raise error

    monkeypatch.setattr(command, "get_function_server", fail)
    assert command.main([]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"create_server_func: {text}") and captured.err.count("\n") == 1
    assert not captured.out and not list(folder.iterdir())


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PRPC_TYPE_BROKER", "rabbit")
    assert command.main([]) == 2
    assert "PRPC_TYPE_BROKER='rabbit' cannot be used" in capsys.readouterr().err


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PRPC_URL_BROKER", "redis://user:hunter2@127.0.0.1:1/0")
    assert command.main(["--timeout", "1"]) == 2
    error = capsys.readouterr().err
    assert "hunter2" not in error and error.count("\n") == 1


@pytest.mark.parametrize("timeout", ["0", "-1", "x", "nan", "inf", "1e9"])
def test_timeouts_that_are_none_are_refused(timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--timeout", timeout])
    assert caught.value.code == 2
    assert "no number of seconds" in capsys.readouterr().err


def test_the_command_runs_as_a_module(folder: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(command.__file__).parents[1]), "PRPC_URL_BROKER": "redis://127.0.0.1:1/0"}
    arguments = [sys.executable, "-m", "prpc.create_server_func", "--timeout", "1"]
    done = subprocess.run(arguments, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("create_server_func: the broker cannot be reached") and done.stderr.count("\n") == 1
