"""The floors of the house: imports go down only, there is no circle, and some things are used on one floor alone.

Every import counts, also those inside functions and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "prpc"

FACES = (
    "prpc",
    "prpc.__main__",
    "prpc.app_client",
    "prpc.app_server",
    "prpc.create_server_func",
    "prpc.dead_letters",
    "prpc.dev_broker",
    "prpc.status",
    "prpc.queue_state",
    "prpc.support_module.exceptions",
    "prpc.pytest_plugin",
    "prpc.testing",
    "prpc.testing.clock",
    "prpc.testing.default",
    "prpc.testing.eager",
    "prpc.testing.eager_loop",
    "prpc.testing.eager_server",
    "prpc.testing.hasten",
    "prpc.testing.server",
    "prpc.testing.stubs",
)

GROUND = (
    "prpc.exceptions",
    "prpc.names",
    "prpc.settings",
    "prpc.deadline",
    "prpc.failure",
    "prpc.call_context",
    "prpc.prpcmessage",
    "prpc.progress",
    "prpc.timers",
)

#: Room -> rooms of other kinds that it may import. A room stands for itself and what is inside it; the longest name counts.
FLOORS: dict[str, tuple[str, ...]] = {
    "prpc.exceptions": (),
    "prpc.names": ("prpc.exceptions",),
    "prpc.settings": ("prpc.exceptions", "prpc.names"),
    "prpc.deadline": ("prpc.exceptions",),
    "prpc.failure": ("prpc.exceptions",),
    "prpc.progress": (),
    "prpc.timers": (),
    "prpc.call_context": ("prpc.exceptions", "prpc.deadline", "prpc.progress"),
    "prpc.conversion": ("prpc.exceptions",),
    "prpc.prpcmessage": ("prpc.exceptions",),
    "prpc.codec": ("prpc.exceptions", "prpc.failure", "prpc.prpcmessage"),
    "prpc.protocol": ("prpc.exceptions", "prpc.deadline", "prpc.prpcmessage", "prpc.failure", "prpc.progress"),
    "prpc.brokers.awaiting": (),
    "prpc.brokers.base": ("prpc.exceptions", "prpc.names"),
    "prpc.brokers": (
        *GROUND[:3],
        "prpc.failure",
        "prpc.call_context",
        "prpc.timers",
        "prpc.brokers.base",
        "prpc.brokers.awaiting",
    ),
    "prpc.streaming.feeding": (),
    "prpc.streaming": (*GROUND, "prpc.codec", "prpc.protocol", "prpc.streaming.feeding"),
    "prpc.workers.promise": (),
    "prpc.workers.base": (
        *("prpc.exceptions", "prpc.failure", "prpc.deadline", "prpc.call_context"),
        *("prpc.streaming.feeding", "prpc.workers.promise"),
    ),
    "prpc.workers": (
        *GROUND[:3],
        *("prpc.deadline", "prpc.failure", "prpc.call_context", "prpc.progress", "prpc.timers"),
        *("prpc.workers.base", "prpc.workers.promise", "prpc.streaming.feeding"),
    ),
    "prpc.stubs": ("prpc.exceptions",),
    "prpc.server": (
        *GROUND,
        *("prpc.codec", "prpc.protocol", "prpc.conversion", "prpc.stubs"),
        *("prpc.brokers", "prpc.brokers.base", "prpc.workers", "prpc.workers.base", "prpc.workers.promise", "prpc.streaming"),
    ),
    "prpc.client": (
        *GROUND,
        *("prpc.codec", "prpc.protocol", "prpc.conversion"),
        *("prpc.brokers", "prpc.brokers.base", "prpc.brokers.awaiting", "prpc.streaming", "prpc.streaming.feeding"),
    ),
    "prpc.support_module": (),
    "prpc.dev_kafka": ("prpc.exceptions",),
    "prpc.dev_broker": ("prpc.exceptions", "prpc.settings", "prpc.dev_kafka"),
}

#: Package -> the rooms in which it may be imported.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "asyncio": (
        "prpc.brokers",
        "prpc.workers",
        "prpc.streaming",
        "prpc.server",
        "prpc.client",
        "prpc.timers",
        "prpc.dev_kafka",
        *FACES,
    ),
    "jsonpickle": ("prpc.codec",),
    "msgspec": ("prpc.codec",),
    "redis": ("prpc.brokers",),
    "hiredis": ("prpc.brokers",),
    "aiokafka": ("prpc.brokers.kafka", "prpc.dev_kafka"),
    "dotenv": ("prpc.settings",),
}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in SOURCES.items()}


def imports_of(module: str) -> Iterator[str]:
    """Every module that this one imports; a submodule that `from package import submodule` names counts as that submodule."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else node.module


def room_of(module: str) -> str:
    """The longest name in the table that holds the module."""
    rooms = [room for room in FLOORS if module == room or module.startswith(room + ".")]
    return max(rooms, key=len, default="")


def own(module: str) -> list[str]:
    return [name for name in imports_of(module) if name == "prpc" or name.startswith("prpc.")]


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_down_only(module: str) -> None:
    if module in FACES:
        return
    room = room_of(module)
    assert room, f"{module} stands in no room: add it to the table of floors"
    for name in own(module):
        target = room_of(name)
        assert name not in FACES, f"{module} imports the face {name}"
        assert target == room or target in FLOORS[room], f"{module} may not import {name}"


@pytest.mark.parametrize("module", SOURCES)
def test_nobody_above_brokers_and_workers_names_one_of_them(module: str) -> None:
    for kind in ("prpc.brokers", "prpc.workers"):
        if module != kind and not module.startswith(kind + "."):
            seam = (kind + ".base", kind + ".awaiting", kind + ".promise")
            named = [name for name in own(module) if name.startswith(kind + ".") and name not in seam]
            assert not named, f"{module} imports {named[0]}; the factory in {kind} makes them"


@pytest.mark.parametrize("module", SOURCES)
def test_one_adapter_does_not_import_another(module: str) -> None:
    for kind in ("prpc.brokers.", "prpc.workers."):
        if module.startswith(kind):
            mine = module.removeprefix(kind).partition("_")[0]
            others = {name.removeprefix(kind).partition("_")[0] for name in own(module) if name.startswith(kind)}
            assert others <= {mine, "base"} | SHARED_PARTS, f"{module} imports {others - {mine, 'base'}}"


#: Parts that several adapters of a seam share.
SHARED_PARTS = {"slots", "awaiting", "clock", "promise"}


@pytest.mark.parametrize("module", SOURCES)
def test_packages_stay_on_their_floors(module: str) -> None:
    for name in imports_of(module):
        rooms = ONLY_IN.get(name.partition(".")[0])
        if rooms is not None:
            allowed = any(module == room or (module.startswith((room + ".", room + "_")) and room != "prpc") for room in rooms)
            assert allowed, f"{module} may not import {name}: only {', '.join(rooms)} may"


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_settings_read_the_environment(module: str) -> None:
    if module == "prpc.settings":
        return
    for node in ast.walk(TREES[module]):
        read = isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb")
        assert not read, f"{module} reads the environment in line {getattr(node, 'lineno', '?')}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {alias.name for alias in node.names} & {"environ", "environb", "getenv", "getenvb"}


def test_there_is_no_circle() -> None:
    # The package itself names its public modules for type checkers and imports none of them.
    graph = {module: {name for name in own(module) if name != module} for module in SOURCES if module != "prpc"}
    for package in ("prpc.brokers", "prpc.workers"):  # a factory names its adapters when it is asked to
        graph[package] = {name for name in graph[package] if not name.startswith(package + ".")}
    graphlib.TopologicalSorter(graph).prepare()


def test_every_room_exists() -> None:
    for room in FLOORS:
        assert room in SOURCES, f"{room} stands in the table only"
