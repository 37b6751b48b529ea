"""The files around the code say the same as the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

from prpc.settings import Settings

ROOT = Path(__file__).parent.parent.parent


def variables() -> dict[str, object]:
    return {item.metadata["variable"]: item.default for item in fields(Settings)}


def test_env_example_names_every_variable_with_its_default() -> None:
    lines = re.findall(r"^(PRPC_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert [name for name, _ in lines] == list(dict.fromkeys(name for name, _ in lines))
    assert {name for name, _ in lines} == variables().keys()
    given = Settings.from_env(dict(lines), instance_name="x")
    assert given == Settings.from_env({}, instance_name="x")


def test_settings_page_names_every_variable() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert variables().keys() - set(re.findall(r"PRPC_[A-Z_]+", page)) == set()


def test_compose_file_fits_the_compose_schema() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "-o",
        "json",
        "docker-compose.yml",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert json.loads(done.stdout)["status"] == "ok", done.stdout + done.stderr


def test_compose_pins_images_and_checks_health() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    images = re.findall(r"image: (\S+)", text)
    assert len(images) == 3 and all(re.search(r":\d+\.\d+", image) for image in images)
    assert text.count("healthcheck:") == 2


def test_requirements_give_the_tests_and_every_broker() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "-e .[kafka,test]" in (ROOT / "requirements.txt").read_text().splitlines()
    core = {re.match(r"[\w-]+", item)[0] for item in project["dependencies"]}  # type: ignore[index]
    assert {"redis", "hiredis", "jsonpickle", "python-dotenv"} <= core
