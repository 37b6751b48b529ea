"""Functions for the workers' conformance tests; importable, so that process workers find them."""

import asyncio
import contextvars
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import prpc.call_context

logger = logging.getLogger("worker_jobs")
variable = contextvars.ContextVar("variable", default="unset")
calls = 0

PROCESS = r"""
import os, socket, sys
path, name, way = sys.argv[1:]
if way == "session":
    os.setsid()
if way == "daemon":
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(path)
    sock.sendall(f"{name} {os.getpid()}\n".encode())
    sock.recv(1)
"""


class CardRefused(Exception):
    pass


def add(a, b):
    return a + b


def fail():
    try:
        raise KeyError("inner")
    except KeyError as exc:
        error = CardRefused("no money")
        error.add_note("ask the bank")
        raise error from exc


def leave():
    raise SystemExit(3)


def interrupt():
    raise KeyboardInterrupt


class Unaskable(Exception):
    def __getattribute__(self, name):
        raise KeyboardInterrupt


def raise_unaskable():
    raise Unaskable


def stop_iteration():
    raise StopIteration(1)


def meet(path, name="worker"):
    """Tell the test that we run, and wait for its word."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(f"{name} {os.getpid()}\n".encode())
        return sock.recv(100).decode()


def meet_and_look(path):
    word = meet(path)
    return word, prpc.call_context.current_call().cancelled


def look_around():
    call = prpc.call_context.current_call()
    return call.message_id, call.function, dict(call.headers), call.attempt, call.remaining() is not None, variable.get()


def set_variable(value):
    before = variable.get()
    variable.set(value)
    return before


def log_and_print(text):
    logger.debug("not wanted")
    logger.warning("said %s", text, extra={"shade": "blue", "thing": threading.Lock()})
    try:
        raise ValueError("logged")
    except ValueError:
        logger.exception("it failed")
    sys.stdout.write(f"printed {text}\n")
    return threading.current_thread().name


async def async_add(a, b):
    await asyncio.sleep(0)
    return a + b


async def async_fail():
    await asyncio.sleep(0)
    fail()


async def async_leave():
    leave()


async def async_interrupt():
    interrupt()


async def async_raise_unaskable():
    raise_unaskable()


async def async_stop_iteration():
    raise asyncio.CancelledError("its own")


async def async_meet(path, name="worker"):
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(f"{name} {os.getpid()}\n".encode())
        return (await reader.read(100)).decode()
    finally:
        writer.close()


async def async_look_around():
    return look_around()


async def async_set_variable(value):
    return set_variable(value)


async def async_log_and_print(text):
    return log_and_print(text)


async def stubborn(path):
    """Swallows every cancellation until the test says its word."""
    talk = asyncio.ensure_future(async_meet(path, "stubborn"))
    while not talk.done():
        try:
            await asyncio.wait([talk])
        except asyncio.CancelledError:
            pass
    return talk.result()


# For process workers only.


def pid():
    return os.getpid()


def session():
    return os.getsid(0), os.getpid(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def die(code):
    os._exit(code)


def segfault():
    ctypes.string_at(0)


def kill_self(number):
    os.kill(os.getpid(), number)


def memory_error():
    raise MemoryError("all gone")


def family(path):
    """A child, one with a session of its own, and a daemon that was forked twice."""
    for way in ("child", "session", "daemon"):
        subprocess.Popen([sys.executable, "-c", PROCESS, path, way, way])
    return meet(path)


def leave_behind(path):
    subprocess.Popen([sys.executable, "-c", PROCESS, path, "child", "child"])
    return os.getpid()


def fork_and_return():
    """The fork returns into the worker's loop: it must not answer in the worker's place."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    logger.warning("after the fork")
    return "parent" if child else "child"


def close_everything():
    os.closerange(3, 1000)
    time.sleep(60)


def make_lambda():
    return lambda: 1


class Unreadable:
    """Pickles well and cannot be read outside."""

    def __reduce__(self):
        return (_explode, (os.getpid(),))


def _explode(maker):
    if os.getpid() != maker:
        raise RuntimeError("cannot be read here")
    return Unreadable()


class Unprintable(BaseException):
    def __str__(self):
        raise SystemExit(4)


class Bomb:
    """Pickles well, and goes off where it is read."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return (_go_off, (self.error,))


def _go_off(error):
    raise error()


def make_bomb(error):
    return Bomb(error)


class NamelessClass(type):
    def __getattribute__(cls, name):
        raise SystemExit(5)


class Nameless(metaclass=NamelessClass):
    pass


def make_nameless():
    return object.__new__(Nameless)


def make_unreadable():
    return Unreadable()


def blob(data, size):
    return len(data), b"r" * size


def count_calls():
    global calls
    calls += 1
    return os.getpid(), calls


def hold_memory(size):
    global calls
    calls = bytearray(os.urandom(1)) * size
    return os.getpid()


def leave_a_thread(path):
    threading.Thread(target=meet, args=(path,)).start()


def answer_and_die():
    """The process ends as soon as the answer is on its way."""
    main = threading.main_thread()

    def die_later():
        while sys._current_frames()[main.ident].f_code.co_name != "read":
            pass
        os._exit(1)

    threading.Thread(target=die_later, daemon=True).start()
    return "answered"


def log_unreadable():
    logger.warning("with a strange thing", extra={"thing": Unreadable()})


class Service:
    def __init__(self, factor):
        self.factor = factor

    def multiply(self, value):
        return self.factor * value


class LockedService(Service):
    def __init__(self):
        super().__init__(2)
        self.lock = threading.Lock()


def outer():
    def inner():
        return 1

    return inner


def note(path, number):
    """Leave a trace of every run."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, b"%d\n" % number)
    finally:
        os.close(descriptor)
    return number


def note_and_pause(path, number):
    time.sleep(0.1)
    return note(path, number)


def remaining():
    return prpc.call_context.current_call().remaining()


def note_and_meet(path, number, meeting):
    note(path, number)
    return meet(meeting)
