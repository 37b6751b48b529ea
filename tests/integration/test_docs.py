"""Every snippet of the README and of docs/ runs, in the order a reader meets them.

A Python block that begins with `# file: NAME` is written to that file. `server*.py` is started (an earlier server of the page
stops) and its stubs are generated; `client*.py` is run; `test_*.py` is run by pytest; any other file just stands there. A block
without a name is run as a script of its own. An `ini` block that names its file is written, too. An `output` block after a run
holds exactly what it prints.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```([\w-]+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    source = page.read_text()
    return [Block(m[1], m[2], source[: m.start()].count("\n") + 1) for m in FENCE.finditer(source)]


class Reader:
    """Follows one page in a folder of its own."""

    def __init__(self, page: Path, folder: Path, kind: str, url: str) -> None:
        self.page, self.folder = page, folder
        self.server: subprocess.Popen[str] | None = None
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PRPC_")},
            "PRPC_TYPE_BROKER": kind,
            "PRPC_URL_BROKER": url,
            "PRPC_QUEUE_NAME": f"docs_{uuid.uuid4().hex}",
            "PYTHONPATH": str(ROOT),
        }

    def follow(self) -> None:
        blocks = blocks_of(self.page)
        for block, after in zip_longest(blocks, blocks[1:]):
            if block.language == "ini" and block.text.startswith("# file: "):
                self.write(block)
            if block.language != "python":
                continue
            printed = self.act(block)
            if after is not None and after.language == "output":
                assert printed == after.text, f"{self.page.name}:{after.line}"

    def act(self, block: Block) -> str | None:
        file, named = self.write(block), block.text.startswith("# file: ")
        name = str(file.relative_to(self.folder))
        where = f"{self.page.name}:{block.line} ({name})"
        if file.name.startswith("server"):
            self.serve(file, where)
            return None
        if file.name.startswith("test_"):
            # Named by hand, as this PRPC need not be installed.
            plugins = ["-p", "prpc.pytest_plugin", "-p", "no:cacheprovider"]
            return self.run([sys.executable, "-m", "pytest", "-q", *plugins, name], where)
        if file.name.startswith("client") or not named:
            return self.run([sys.executable, name], where)
        return None

    def write(self, block: Block) -> Path:
        named = re.match(r"# file: (\S+)\n", block.text)
        file = self.folder / (named[1] if named else f"snippet_{block.line}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        return file

    def serve(self, file: Path, where: str) -> None:
        self.stop()
        log = (self.folder / "server.log").open("w")
        self.server = subprocess.Popen(
            [sys.executable, file.name], cwd=self.folder, env=self.environ, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        log.close()
        try:
            self.wait_for_server(where)
            self.run([sys.executable, "-m", "prpc.create_server_func"], where)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\nserver:\n{(self.folder / 'server.log').read_text()}") from None

    def wait_for_server(self, where: str) -> None:
        """Most say in their log when they serve; to ask takes another process, which costs more than all else here."""
        until = time.monotonic() + 3
        while "serving " not in (self.folder / "server.log").read_text():
            if time.monotonic() > until:
                self.run([sys.executable, "-m", "prpc", "ping", "--wait", "20"], where)
                return
            time.sleep(0.02)

    def run(self, command: list[str], where: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, f"{where}: {' '.join(command[1:])}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        if self.server is not None:
            self.server.terminate()
            code, self.server = self.server.wait(30), None
            assert code == 0, (self.folder / "server.log").read_text()


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    """Pages about Kafka run on a real one, all others on a real Redis."""
    kind, url = ("kafka", "kafka_bootstrap") if "kafka" in request.param.name else ("redis", "redis_url")
    reader = Reader(request.param, tmp_path, kind, request.getfixturevalue(url))
    yield reader
    reader.stop()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("reader", PAGES, indirect=True, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_snippets_of_the_page_run(reader: Reader) -> None:
    reader.follow()


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_commands_of_the_page_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks_of(page):
        if block.language == "console":
            for target in re.findall(r"^\$ make ([a-z-]+)", block.text, re.MULTILINE):
                assert target in targets, f"{page.name}: make {target}"
            for module in re.findall(r"^\$ python -m ([\w.]+)", block.text, re.MULTILINE):
                assert importlib.util.find_spec(module) is not None, f"{page.name}: python -m {module}"


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_of_the_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
