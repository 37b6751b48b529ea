"""A user's code against the client and the server is fully typed, for mypy --strict and for pyright; wrong calls are found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

USAGES = [Path(__file__).with_name(name) for name in ("client_usage.py", "server_usage.py", "testing_usage.py")]
ROOT = Path(__file__).parents[2]


def mypy_lines(usage: Path) -> list[int]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--no-error-summary", str(usage)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    return [int(found[1]) for line in done.stdout.splitlines() if (found := re.match(rf".*{usage.name}:(\d+): error", line))]


def pyright_lines(usage: Path) -> list[int]:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(usage)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [item["range"]["start"]["line"] + 1 for item in found if item["severity"] == "error"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("usage", USAGES, ids=lambda usage: usage.stem)
@pytest.mark.parametrize("checker", [mypy_lines, pyright_lines])
def test_type_checkers_agree_with_the_documented_types(checker: object, usage: Path) -> None:
    assert callable(checker)
    lines = usage.read_text(encoding="utf-8").splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if "# expect-error" in line]
    assert sorted(set(checker(usage))) == wrong
