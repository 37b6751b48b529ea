"""The public face keeps its names and signatures, and importing it costs next to nothing."""

from __future__ import annotations

import importlib
import inspect
import pickle
import subprocess
import sys

import pytest

import prpc
from prpc import app_client, exceptions


@pytest.mark.parametrize("name", prpc.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(prpc, name) is not None
    assert name in dir(prpc)


def test_every_error_is_public() -> None:
    for name in exceptions.__all__:
        assert getattr(prpc, name) is getattr(exceptions, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        prpc.nonsense


def test_the_old_path_of_the_errors_works() -> None:
    old = importlib.import_module("prpc.support_module.exceptions")
    assert old.__all__ == exceptions.__all__
    for name in old.__all__:
        assert getattr(old, name) is getattr(exceptions, name)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (prpc.AppServer, "type_broker broker_url default_type_worker max_number_worker timeout_worker name_queue group_name"),
        (prpc.AppServer.decorator_reg_func, "self worker_type name timeout idempotent max_concurrency broadcast"),
        (prpc.AppServer.register_func, "self func worker_type"),
        (prpc.AppServer.register_funcs, "self funcs worker_type"),
        (prpc.AppServer.register_service, "self obj prefix"),
        (prpc.AppServer.start, "self"),
        (prpc.AppServer.serve, "self"),
        (prpc.AppServer.stop, "self"),
        (prpc.AwaitableTask, "func_name args kwargs"),
        (prpc.AwaitableTask.sync_wait_result_task, "self timeout"),
        (prpc.AwaitableTask.async_wait_result_task, "self timeout"),
        (prpc.AwaitableTask.result, "self timeout"),
        (prpc.AwaitableTask.is_done_task, "self update_status"),
        (prpc.AwaitableTask.get_result, "self"),
        (prpc.AwaitableTask.cancel, "self"),
        (prpc.Client, "type_broker broker_url name_queue"),
        (prpc.AsyncClient, "type_broker broker_url name_queue"),
        (prpc.RemoteFunction.options, "self timeout retries attempt_timeout backoff headers"),
        (prpc.RemoteFunction.map, "self iterables max_in_flight ordered return_exceptions timeout progress"),
        (prpc.Client.map, "self name iterables max_in_flight ordered return_exceptions timeout progress"),
        (prpc.remote_function, "name schema idempotent"),
        (prpc.ping, "timeout"),
        (prpc.get_function_server, "timeout"),
        (prpc.gather, "tasks return_exceptions progress"),
        (prpc.as_completed, "tasks timeout progress"),
        (prpc.CurrentCall.progress, "self done total message"),
        (prpc.AwaitableTask.on_progress, "self callback"),
        (prpc.progress_bar, "tasks options"),
        (prpc.Progress, "done total message"),
    ],
)
def test_public_signatures(function: object, parameters: str) -> None:
    assert callable(function)
    assert list(inspect.signature(function).parameters)[: len(parameters.split())] == parameters.split()


def test_the_stubs_imports_are_there() -> None:
    for name in ("AwaitableTask", "Client", "AsyncClient", "RemoteFunction", "remote_function", "ping", "get_function_server"):
        assert hasattr(app_client, name)


def test_public_errors_survive_pickling() -> None:
    error = prpc.ClientTimeOutError("late", message_id="x", timeout=2.0)
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.message_id, copied.timeout) == ("late", "x", 2.0)


def imported_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


DRIVERS = {"redis", "hiredis", "aiokafka", "pydantic"}


@pytest.mark.parametrize("statement", ["import prpc", "import prpc; prpc.PRPCError", "from prpc import current_call"])
def test_importing_loads_no_driver_and_does_no_work(statement: str) -> None:
    loaded = imported_by(statement)
    assert not loaded & (DRIVERS | {"asyncio", "jsonpickle", "orjson", "dotenv", "prpc.app_client", "prpc.app_server"})


@pytest.mark.parametrize("statement", ["import prpc.app_client", "from prpc import Client; Client('memory', 'memory://x')"])
def test_the_client_loads_no_driver_before_its_first_call(statement: str) -> None:
    assert not imported_by(statement) & DRIVERS
