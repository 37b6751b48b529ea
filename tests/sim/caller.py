"""What the simulated clients do: calls of every kind by a drawn script, each noted with how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from tests.sim.workload import IDEMPOTENT, STREAMS

if TYPE_CHECKING:
    from prpc.app_client import AsyncClient
    from tests.sim.options import Options
    from tests.sim.world import World

__all__ = ["Plan", "drawn_plan", "drawn_plans", "run_plan"]

#: The errors that scripts raise by themselves.
OF_SCRIPT = {"raise": "ValueError", "exit": "RemoteException", "unwritable": "EncodeError"}


@dataclass(frozen=True, slots=True)
class Plan:
    """One call: when, of what, how it ends by itself, and what its caller does meanwhile."""

    at: float
    kind: str
    seconds: float
    end: str
    timeout: float
    #: Seconds after which the caller cancels, or the reader leaves; None for never.
    leave: float | None
    count: int
    sure: bool = False


def drawn_plan(draw: Random, options: Options) -> Plan:
    """One call of the options' load."""
    kind = draw.choice(options.kinds)
    return Plan(
        at=draw.random() * options.span,
        kind=kind,
        seconds=draw.choice((0.0, 0.01, 0.1, 0.5, 2.0, 6.0)),
        end=draw.choice(options.ends),
        timeout=draw.choice(options.timeouts),
        leave=draw.choice((None,) * 6 + (0.0, 0.05, 1.0)),
        count=draw.choice((0, 1, 3, 20)),
    )


def drawn_plans(draw: Random, options: Options) -> list[Plan]:
    """All calls of the options' load."""
    return [drawn_plan(draw, options) for _ in range(options.calls)]


async def run_plan(world: World, name: str, client: AsyncClient, plan: Plan) -> None:
    """One call of the process `name`, from its beginning to its outcome."""
    function = "work" if plan.kind == "odd" else plan.kind
    options = client.options(timeout=plan.timeout, idempotent=function in IDEMPOTENT)
    if function in STREAMS:
        await _stream(world, name, options, function, plan)
        return
    args: tuple[Any, ...] = (plan.seconds, plan.end)
    if function == "feed":
        args = (_items(plan), plan.end)
    task = options.call(function, *args)
    message_id = str(task.message.message_id)
    _note_call(world, name, message_id, function, plan)
    if plan.leave is not None:
        await _wait(task, plan.leave)
        if not task.is_done_task():
            won = task.cancel()
            world.note("cancel", id=message_id, won=won)
    try:
        await task
    except Exception:
        pass
    except asyncio.CancelledError:  # whoever waits is ended itself, and hears nothing any more
        world.note("leave", id=message_id)
        raise
    _note_outcome(world, message_id, task, "outcome")
    await asyncio.sleep(1.0)
    _note_outcome(world, message_id, task, "again")


async def _wait(task: Any, seconds: float) -> None:
    try:
        await task.async_wait_result_task(seconds)
    except Exception:
        pass


def _note_call(world: World, name: str, message_id: str, function: str, plan: Plan) -> None:
    world.note(
        "call",
        id=message_id,
        client=name,
        function=function,
        idempotent=function in IDEMPOTENT,
        timeout=plan.timeout,
        sure=plan.sure,
        stream=function in STREAMS,
        sends=function == "feed",
        expects=_expected(world, plan),
        stops=plan.end not in ("stubborn", "hold") and function != "nested",
        window=world.options.window if function in STREAMS else None,
    )


def _expected(world: World, plan: Plan) -> list[str]:
    """Errors that the call may end with although nothing goes wrong."""
    found = [OF_SCRIPT[plan.end]] if plan.end in OF_SCRIPT else []
    if not plan.sure and world.may_run_out(plan.seconds, plan.timeout):
        found += ["ClientTimeOutError", "WorkerTimeoutError", "DeadlineExceededError"]
    return found


def _note_outcome(world: World, message_id: str, task: Any, event: str) -> None:
    how, token = "value", None
    try:
        token = task.get_result()
    except BaseException as exc:
        how = name_of(exc)
        if how in ("ValueError", "RemoteException"):
            token = str(exc)
    world.note(event, id=message_id, how=how, token=token)
    if event == "outcome":
        world.counts[f"outcome {how}"] += 1


def name_of(exc: BaseException) -> str:
    """The error's class, as the ledger names it."""
    return "ValueError" if isinstance(exc, ValueError) else type(exc).__name__


async def _items(plan: Plan) -> AsyncIterator[int]:
    for number in range(plan.count):
        await asyncio.sleep(plan.seconds / plan.count)
        yield number


async def _stream(world: World, name: str, options: Any, function: str, plan: Plan) -> None:
    reading = options.stream(function, plan.seconds, plan.end, plan.count)
    message_id = str(reading.message.message_id)
    _note_call(world, name, message_id, function, plan)
    how, read, left, token = "value", 0, False, None
    try:
        async for item in reading:
            if plan.leave == 1.0:
                await asyncio.sleep(0.3)
            world.note("read", id=message_id, index=int(item))
            read += 1
            if plan.leave is not None and read > plan.leave * 10:
                left = True
                break
        token = world.last_end(message_id)
        if not left and read != plan.count:
            world.note("broken", what=f"the stream {message_id} ended after {read} of {plan.count} items")
    except Exception as exc:
        how = name_of(exc)
    if left:
        world.note("leave", id=message_id)
        await reading.aclose()
        world.counts["outcome left"] += 1
        return
    world.note("outcome", id=message_id, how=how, token=token)
    world.counts[f"outcome {how}"] += 1
