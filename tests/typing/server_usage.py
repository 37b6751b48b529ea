"""What type checkers make of the server's face and of the errors; checked by test_client_types.py, never run."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import replace
from typing import Any, assert_type

import prpc
from prpc import AppServer, Client, CurrentCall, current_call
from prpc.app_client import Middleware, OutgoingCall, Proceed
from prpc.support_module.exceptions import ClientTimeOutError
from prpc.testing import running

app = AppServer("redis", "redis://localhost:6379/0", "thread", 4, datetime.timedelta(seconds=100))
other = AppServer(default_type_worker="async", max_number_worker=8, name_queue="q", group_name="prpc_group_consumers")


@app.decorator_reg_func("process")
def summ(a: int | float, b: int, z: float = 0.5) -> float:
    call = current_call()
    assert_type(call, CurrentCall)
    assert_type(call.remaining(), float | None)
    assert_type(call.message_id, str)
    assert_type(call.headers.get("a"), str | None)
    call.progress(1, 2.5, "half")
    return a + b + z


@app.decorator_reg_func()
def hello_world() -> str:
    return "hello"


@other.function("async", name="jobs.wait", timeout=3, idempotent=True)
async def wait(seconds: float) -> list[float]:
    return [seconds]


@other.function("async", broadcast=True, max_concurrency=1)
async def tell(text: str) -> None: ...


class Service:
    def add(self, a: int) -> int:
        return a


app.register_func(len, "thread", name="length")
app.register_funcs(print, hello_world, worker_type="thread")
app.register_service(Service(), prefix="service.")


def local_calls() -> None:
    assert_type(summ(1, 2), float)
    assert_type(hello_world(), str)
    summ("x", 2)  # expect-error: argument type
    with running(app) as client:
        assert_type(client, Client)


async def serve() -> None:
    assert_type(await wait(1), list[float])
    serving = asyncio.create_task(app.serve())
    await app.ready
    await app.stop()
    await serving


async def trace(call: OutgoingCall, proceed: Proceed) -> Any:
    return await proceed(replace(call, headers={**call.headers, "trace": call.function}))


layer: Middleware = trace


def errors(client: Client) -> None:
    try:
        client.call("f").result(3)
    except prpc.BadArgumentsError as exc:  # StaleStubError is one
        assert_type(exc.parameter, str | None)
    except prpc.FunctionNotFoundError as exc:
        exc.nearest
    except (prpc.WorkerTimeoutError, prpc.WorkerLostError, prpc.DeadlineExceededError, prpc.ServerShutdownError):
        raise
    except ClientTimeOutError as exc:
        assert_type(exc.message_id, str | None)
    except prpc.CallCancelledError as exc:
        assert_type(exc.message_id, str | None)
    except (prpc.NoServerError, prpc.QueueFullError, prpc.BrokerUnavailableError):
        raise
    except prpc.RemoteError as exc:
        assert_type(exc.traceback, str | None)
    except (prpc.EncodeError, prpc.DecodeError, prpc.SerializationError, prpc.CallError):
        raise
    except (prpc.ConfigurationError, prpc.RegistrationError, prpc.PRPCError):
        raise
