"""What the generator makes of awkward signatures: kept as files, type-checked, imported, and called for real.

`python tests/typing/test_golden_stubs.py` writes the files anew; read the difference before it is committed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prpc.app_client import AwaitableTask, RemoteFunction, RemoteStream, Stream, use_client
from prpc.app_server import AppServer
from prpc.exceptions import FunctionNotFoundError
from prpc.stubs.codegen import generate
from prpc.stubs.signature import describe_function
from prpc.testing import running

HERE = Path(__file__).parent / "golden"
ROOT = HERE.parents[2]
QUEUE = "task_prpc"
MODERN = sys.version_info >= (3, 12)


def load(name: str) -> ModuleType:
    """A module of the folder `golden`, under its own name, as pickles and annotations need it."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


other = load("awkward_other")
functions = load("awkward_functions")
types = load("awkward_types")
modern = load("awkward_modern")
streams = load("awkward_streams")


def modern_module() -> ModuleType:
    name = "awkward_modern_source"
    if name not in sys.modules:
        sys.modules[name] = module = ModuleType(name)
        exec(compile(modern.SOURCE, name, "exec", dont_inherit=True), vars(module))
    return sys.modules[name]


def _named(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {function.__name__: function for function in module.FUNCTIONS}


def _methods(service: object, prefix: str) -> dict[str, Callable[..., Any]]:
    return {prefix + name: getattr(service, name) for name in dir(service) if callable(getattr(service, name)) and name[0] != "_"}


#: File -> registered name -> function.
GROUPS: dict[str, Callable[[], Mapping[str, Callable[..., Any]]]] = {
    "stub_functions": lambda: _named(functions),
    "stub_names": lambda: functions.NAMED,
    "stub_services": lambda: {**_methods(functions.Calculator(3), "calc."), **_methods(types.Service(), "shapes.")},
    "stub_types": lambda: _named(types),
    "stub_streams": lambda: streams.NAMED,
    "stub_modern": lambda: {name: getattr(modern_module(), name) for name in modern.NAMES},
}
AVAILABLE = [name for name in GROUPS if MODERN or name != "stub_modern"]


def generated(group: str) -> str:
    descriptions = [
        describe_function(function, name=name, worker="thread", idempotent=name == "exact", timeout=None)
        for name, function in GROUPS[group]().items()
    ]
    return generate(json.loads(json.dumps(descriptions)), queue=QUEUE)


@pytest.mark.parametrize("group", AVAILABLE)
def test_the_files_are_what_the_generator_writes(group: str) -> None:
    assert generated(group) == (HERE / f"{group}.py").read_text(encoding="utf-8")


def test_there_are_at_least_forty_awkward_signatures() -> None:
    assert sum(len(GROUPS[group]()) for group in AVAILABLE) > 100


@pytest.mark.parametrize("group", GROUPS)
def test_each_function_can_be_imported_with_its_signature(group: str) -> None:
    module = load(group)
    found = [value for value in vars(module).values() if isinstance(value, RemoteFunction | RemoteStream)]
    text = (HERE / f"{group}.py").read_text(encoding="utf-8")
    assert len(found) == text.count('remote_function("') + text.count('remote_stream("')
    for function in found:
        assert inspect.signature(function).return_annotation is not inspect.Signature.empty


def test_every_public_name_is_listed() -> None:
    for group in GROUPS:
        module = load(group)
        assert all(hasattr(module, name) for name in module.__all__)
        assert len(set(module.__all__)) == len(module.__all__)


def _run(*command: str) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", *command], cwd=HERE, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _files() -> list[str]:
    return [f"{group}.py" for group in GROUPS]


def test_mypy_strict_accepts_the_files(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    _run(
        "mypy", "--strict", "--python-version=3.11", "--config-file=", f"--cache-dir={tmp_path}", "--follow-imports=silent",
        *_files(), "assertions.py",
    )  # fmt: skip


@pytest.mark.timeout(120)
def test_pyright_accepts_the_files(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    for file in [*_files(), "assertions.py"]:
        shutil.copy(HERE / file, tmp_path)
    config = {"include": ["."], "extraPaths": [str(ROOT)], "pythonVersion": "3.11", "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--project", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(GROUPS) + 1, report
    assert not report["generalDiagnostics"], json.dumps(report["generalDiagnostics"], indent=1)


def test_formatters_leave_the_files_alone() -> None:
    pytest.importorskip("ruff")
    _run("ruff", "format", "--isolated", "--check", *_files())
    if importlib.util.find_spec("black") is not None:
        _run("black", "--check", *_files())


# Real calls: the text of each call is evaluated here and over there.


@pytest.fixture(scope="module", params=list(GROUPS))
def served(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server in memory with the functions of one file; the calls of that file's module go to it."""
    group: str = request.param
    if group not in AVAILABLE:
        pytest.skip("Python 3.12 syntax")
    app = AppServer("memory", max_number_worker=2)
    registered = {name: function for name, function in GROUPS[group]().items() if name not in FOREIGN.values()}
    for name, function in registered.items():
        needs_loop = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        app.register_func(function, "async" if needs_loop else "thread", name=name)
    with running(app) as client:
        stubs = client.get_function_server()
        assert [item["func_name"] for item in stubs] == ["ping", *registered]
        use_client(client)
        try:
            yield group
        finally:
            use_client(None)


MADE = datetime.datetime(2024, 1, 1)
SERVICE_CALLS = {
    "calc_add(2, times=3)": "calc.add(2, times=3)",
    "calc_make()": "calc.make()",
    "calc_fixed(4)": "calc.fixed(4)",
    "shapes_paint(Color.RED, Color.BLUE)": "shapes.paint(Color.RED, Color.BLUE)",
    "shapes_move(Point(1.0, 2.0))": "shapes.move(Point(1.0, 2.0))",
}


#: Call through the stub -> the same call of the function that is registered under that name.
NAMED_CALLS = {
    "class_()": "nothing()",
    "match(1, b='y')": "star_only(1, b='y')",
    "list([1, 2], {'a': 1}, ['x'])": "abstract([1, 2], {'a': 1}, ['x'])",
    "int('a', 'b')": "varargs('a', 'b')",
    "print(1, 2, 3, c=4, d=5)": "unannotated(1, 2, 3, c=4, d=5)",
    "Any(a=5)": "keyword_only(a=5)",
    "remote_function()": "enums()",
    "remote_function(awkward_functions_Level.LOW, Mode.SLOW, Right.BOTH)": "enums(Level.LOW, Mode.SLOW, Right.BOTH)",
    "datetime()": "dates()",
    "datetime(moment=MADE)": "dates(moment=MADE)",
    "Literal('w')": "literal('w')",
    "orders_add_2(7, 3)": "positional_only(7, 3)",
    "orders_add(7, b='3')": "star_only(7, b='3')",
    "Level(x=1.5)": "varkw(x=1.5)",
    "cast(3)": "implicit_optional(3)",
    "object(7)": "hidden_default(7)",
    "Optional(1, 'b', [1], {'a': (1, 2)})": "old_typing(1, 'b', [1], {'a': (1, 2)})",
    "str(quoted='x')": "strings(quoted='x')",
    "dict([1], names={'x'})": "containers([1], names={'x'})",
    "tuple()": "containers()",
    **dict.fromkeys(
        "SERVER_SCHEMA_() SERVER_DEFAULT_() annotations_() all() import_() file_2() file() _() type() None_() prpc()".split(),
        "nothing()",
    ),
}
#: Names that only a foreign server gives; ours refuses them at registration. Stub -> name on the wire.
FOREIGN = {"with_spaces_and_dashes": "with spaces and-dashes", "_1st": "1st", "_lambda_": "<lambda>"}


def test_every_named_function_is_called() -> None:
    called = {call.partition("(")[0] for call in NAMED_CALLS}
    stubs = {name for name, value in vars(load("stub_names")).items() if isinstance(value, RemoteFunction)}
    assert called | set(FOREIGN) == stubs


@pytest.mark.parametrize("stub", FOREIGN)
def test_a_foreign_name_travels_as_it_is(stub: str) -> None:
    with running(AppServer("memory")) as client:
        task = getattr(load("stub_names"), stub).options(client=client)()
        assert task.message.func_name == FOREIGN[stub]
        with pytest.raises(FunctionNotFoundError):
            task.result(20)


def _calls(group: str) -> Mapping[str, str]:
    if group == "stub_services":
        return SERVICE_CALLS
    if group == "stub_names":
        return NAMED_CALLS
    module = {"stub_functions": functions, "stub_types": types, "stub_modern": modern, "stub_streams": streams}[group]
    return {call: call for call in module.CALLS}


def _local_names(group: str) -> dict[str, Any]:
    sources = {
        "stub_streams": streams,
        "stub_functions": functions,
        "stub_names": functions,
        "stub_types": types,
        "stub_services": types,
    }
    source = sources.get(group) or modern_module()
    names = {**vars(source), "OTHER": other.Address, "FLOOR": other.Outer.Address, "OTHER_COLOR": other.Color}
    return {**names, "MADE": MADE, "calc": functions.Calculator(3), "shapes": types.Service(), **_people(source)}


def _remote_names(group: str) -> dict[str, Any]:
    stub = load(group)
    names = dict(vars(stub))
    if group == "stub_types":
        names |= {"OTHER": stub.awkward_other_Address, "FLOOR": stub.Outer_Address, "OTHER_COLOR": stub.awkward_other_Color}
    return {**names, "MADE": MADE, **_people(stub)}


def _people(module: ModuleType) -> dict[str, Any]:
    if not hasattr(module, "User"):
        return {}
    friend = module.User(name="friend", made=MADE)
    facts: dict[str, Any] = {"home": module.Address("x"), "made": MADE, "friends": [friend]}
    return {"USER": module.User(name="me", **facts), "ADMIN": module.Admin(name="root", **facts)}


def test_a_call_gives_what_the_function_gives_locally(served: str) -> None:
    here, there = _local_names(served), _remote_names(served)
    for remote_call, local_call in _calls(served).items():
        local = eval(local_call, dict(here))
        if inspect.iscoroutine(local):
            local = asyncio.run(local)
        elif isinstance(local, AsyncIterator):
            local = asyncio.run(_items(local))
        task = eval(remote_call, dict(there))
        if isinstance(task, Stream):
            local, remote = list(local), list(task)
        else:
            assert isinstance(task, AwaitableTask)
            remote = task.result(20)
        assert plain(remote) == plain(local), remote_call


async def _items(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


def plain(value: Any) -> Any:
    """The value without its classes, which are others in the server and in the stub; their names count."""
    if isinstance(value, enum.Enum):
        return type(value).__name__.rpartition("_")[2], value.name, value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return type(value).__name__, fields
    if hasattr(value, "model_dump"):
        return type(value).__name__, plain(value.model_dump())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value).__name__, [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value).__name__, [plain(item) for item in value]
    return type(value).__name__, value


if __name__ == "__main__":
    for group_name in AVAILABLE:
        (HERE / f"{group_name}.py").write_text(generated(group_name), encoding="utf-8")
