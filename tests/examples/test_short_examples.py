"""The first call and the short examples run as a reader runs them, and print exactly what their `expected.txt` says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prpc.app_server import AppServer
from prpc.stubs.codegen import generate
from prpc.stubs.signature import describe_function

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FOLDERS = [EXAMPLES / "quickstart", *sorted(file.parent for file in (EXAMPLES / "short").glob("[0-9][0-9]_*/server.py"))]
FILES = [file for folder in FOLDERS for file in sorted(folder.glob("*.py")) if file.name != "server_func.py"]
MOST_LINES = 40
#: Seconds that a program gets to do its part; a machine with other work is slow.
PATIENCE = 60.0


class Terminals:
    """A copy of one example's folder, and the programs that are started in it."""

    def __init__(self, example: Path, folder: Path, kind: str, url: str) -> None:
        self.folder = folder / example.name
        shutil.copytree(example, self.folder, ignore=shutil.ignore_patterns("__pycache__", "server_func.py", "expected.txt"))
        self.expected = (example / "expected.txt").read_text()
        self.environ = {
            **os.environ,
            "PRPC_TYPE_BROKER": kind,
            "PRPC_URL_BROKER": url,
            "PRPC_QUEUE_NAME": f"short_{uuid.uuid4().hex}",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, *command: str) -> str:
        """What `python ...` prints; it must end well and have nothing to say on standard error."""
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (done.returncode, done.stderr) == (0, ""), f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def server(self) -> Iterator[None]:
        """`python server.py`, stopped by SIGTERM where the example has not done so itself; either way it exits with 0."""
        with (self.folder / "server.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "server.py"], cwd=self.folder, env=self.environ, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self.wait_until_it_serves(process)
            yield
        except BaseException:
            process.kill()
            print((self.folder / "server.log").read_text())
            raise
        finally:
            if "stopping: " not in (self.folder / "server.log").read_text():  # else it is on its way out by itself
                process.terminate()
            process.wait(PATIENCE)
        assert process.returncode == 0, (self.folder / "server.log").read_text()

    def wait_until_it_serves(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + PATIENCE
        while "serving " not in (self.folder / "server.log").read_text():
            assert process.poll() is None and time.monotonic() < until, "the server does not serve"
            time.sleep(0.02)


@pytest.fixture
def terminals(request: pytest.FixtureRequest, tmp_path: Path) -> Terminals:
    kind, url = ("kafka", "kafka_bootstrap") if "kafka" in request.param.name else ("redis", "redis_url")
    return Terminals(request.param, tmp_path, kind, request.getfixturevalue(url))


def marked(folder: Path) -> object:
    kind = pytest.mark.real_kafka if "kafka" in folder.name else pytest.mark.real_redis
    return pytest.param(folder, marks=kind, id=folder.name)


@pytest.mark.parametrize("terminals", [marked(folder) for folder in FOLDERS if (folder / "client.py").exists()], indirect=True)
def test_client_prints_what_is_expected(terminals: Terminals) -> None:
    with terminals.server():
        if any("from server_func import" in file.read_text() for file in terminals.folder.glob("*.py")):
            terminals.run("-m", "prpc.create_server_func")
        assert terminals.run("client.py") == terminals.expected


@pytest.mark.parametrize(
    "folder", [folder for folder in FOLDERS if list(folder.glob("test_*.py"))], ids=lambda folder: folder.name
)
def test_examples_about_tests_pass(folder: Path, tmp_path: Path) -> None:
    """Without a broker: the URL leads nowhere."""
    terminals = Terminals(folder, tmp_path, "redis", "redis://127.0.0.1:1/0")
    printed = terminals.run("-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert re.sub(r" in [\d.]+s$", "", printed.strip().splitlines()[-1]) == terminals.expected.strip()


def test_index_lists_all_in_reading_order() -> None:
    listed = re.findall(r"^(\d+)\. \[[^\]]+\]\((\S+)/\): \S", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert [path for _, path in listed] == [str(folder.relative_to(EXAMPLES)) for folder in FOLDERS]
    assert [int(number) for number, _ in listed] == [1, *(int(folder.name[:2]) for folder in FOLDERS[1:])]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_file_is_short_and_says_first_what_it_shows(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= MOST_LINES
    assert re.match(r'r?"""\S.{20}', lines[0])


def test_first_page_of_the_readme_shows_the_first_example() -> None:
    page = (ROOT / "README.md").read_text()
    for name in ("server.py", "client.py"):
        shown = re.search(rf"^```python\n# file: {re.escape(name)}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        assert shown is not None
        assert (EXAMPLES / "quickstart" / name).read_text().partition("\n\n")[2] == shown[1]


def stubs_of(server: Path) -> str:
    """What the generator makes of an example's server."""
    spec = importlib.util.spec_from_file_location(f"short_example_{server.parent.name}", server)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app: AppServer = module.app
    descriptions = [
        describe_function(f.function, name=f.name, worker=f.kind.value, idempotent=f.idempotent, timeout=f.timeout)
        for f in app.functions
    ]
    return generate(json.loads(json.dumps(descriptions)), queue="task_prpc")


def test_mypy_finds_nothing_in_the_examples_with_their_stubs(tmp_path: Path) -> None:
    """In packages, as mypy takes no two modules of one name."""
    for folder in FOLDERS:
        package = tmp_path / f"example_{folder.name}"
        package.mkdir()
        (package / "__init__.py").touch()
        texts = {file.name: file.read_text() for file in FILES if file.parent == folder}
        texts["server_func.py"] = stubs_of(folder / "server.py")
        neighbours = "|".join(name.removesuffix(".py") for name in texts)
        for name, text in texts.items():
            (package / name).write_text(re.sub(rf"^from ({neighbours}) import", r"from .\1 import", text, flags=re.MULTILINE))
    strict = ["--strict", "--config-file", "", "--follow-imports", "silent", "--no-error-summary"]
    environ = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "mypy", *strict, "."], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
