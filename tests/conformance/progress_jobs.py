"""Functions that say how far they are; importable, so that process workers find them."""

import asyncio
import os
import threading

from worker_jobs import meet

from prpc import current_call


def count(total):
    """Say it as often as can be."""
    call = current_call()
    for number in range(1, total + 1):
        call.progress(number, total, f"item {number}")
    return total


def count_in_threads(total):
    """From several threads at once; the last word is ours."""
    call = current_call()

    def work():
        for number in range(total):
            call.progress(number, total)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    call.progress(total, total)
    return total


def say_and_meet(path):
    """Say something twice, each time after the test's word."""
    call = current_call()
    call.progress(1)
    first = meet(path)
    call.progress(2, 4, first)
    return meet(path)


def say_nonsense():
    try:
        current_call().progress(-1)
    except ValueError as exc:
        return str(exc)
    return None


def fail_at(number):
    current_call().progress(number, 10)
    raise KeyError(number)


def say_in_a_fork(number):
    """A process that user code forked says nothing in our name."""
    call = current_call()
    call.progress(number)
    pid = os.fork()
    if pid == 0:
        call.progress(99)
        os._exit(0)
    os.waitpid(pid, 0)
    return number


async def async_count(total):
    return count(total)


async def async_say_and_meet(path):
    return await asyncio.to_thread(say_and_meet, path)


async def async_fail_at(number):
    fail_at(number)
