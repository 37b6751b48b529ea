"""A call is cancelled by its task, or with the coroutine that waits for it. The function stops on the server."""

import asyncio

from server_func import bake, knead, next_event

import prpc


def plain() -> None:
    task = knead()
    print(next_event().result(timeout=20))
    task.cancel()
    try:
        task.result(timeout=20)
    except prpc.CallCancelledError:
        print("cancelled by the task")
    print(next_event().result(timeout=20))


async def native() -> None:
    waiting = asyncio.create_task(bake(60).async_wait_result_task())
    print(await next_event())
    waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        print("cancelled with the coroutine")
    print(await next_event())


plain()
asyncio.run(native())
