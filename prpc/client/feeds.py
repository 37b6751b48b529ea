"""Arguments that are streams: their items go to the function as it asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, MappingView, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from prpc.brokers.awaiting import background
from prpc.client.call import Call
from prpc.streaming.desk import Desk
from prpc.streaming.ends import Writer
from prpc.streaming.feeding import Feeder, feed

__all__ = ["PLAIN", "Failed", "Feeding", "is_stream", "take_out"]

#: Types that are no streams, and make up most arguments.
PLAIN = frozenset({int, str, float, bool, list, dict, tuple, bytes, type(None)})

#: Told what an iterable raised.
Failed = Callable[[Call, BaseException], None]


def take_out(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any], dict[str, Any]]:
    """The arguments, with None where one is a stream, and the streams by place or name."""
    streams: dict[str, Any] = {}
    for place, value in enumerate(args):
        if type(value) not in PLAIN and is_stream(value):
            streams[str(place)] = value
    streams.update({name: value for name, value in kwargs.items() if type(value) not in PLAIN and is_stream(value)})
    if streams:
        args = [None if str(place) in streams else value for place, value in enumerate(args)]
        kwargs = {name: None if name in streams else value for name, value in kwargs.items()}
    return args, kwargs, streams


def is_stream(value: object) -> bool:
    """Whether it is made to be run through once, or has no form as a value."""
    return isinstance(value, Iterator | AsyncIterable | range | MappingView)


class _Sending(Writer):
    """Holds its call, which may have nobody else: only its outcome ends the sending."""

    def __init__(self, call: Call, *end: Any) -> None:
        super().__init__(*end)
        self._call = call


class Feeding:
    """The streams that one call sends. Made where the call is made; otherwise in the loop's thread."""

    def __init__(self, streams: Mapping[str, Any], *, in_loop: bool) -> None:
        """Raises TypeError for an async iterable outside of a coroutine (`in_loop`), where nothing runs it."""
        for items in streams.values():
            if isinstance(items, AsyncIterable) and not in_loop:
                raise TypeError(f"{type(items).__name__} is an async iterable: send it in a coroutine, or send a plain iterable")
        self._streams = streams
        self._context = copy_context()
        self._stops: list[Callable[[], object]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Places or names of the arguments."""
        return tuple(self._streams)

    def start(self, call: Call, desk: Desk, loop: asyncio.AbstractEventLoop, failed: Failed) -> None:
        """Be ready to send; `failed` is told where an iterable raises."""
        for name, items in self._streams.items():
            root = f"an item of the argument {name if name.isdigit() else repr(name)} of {call.message.func_name}()"
            writer = _Sending(call, desk, (call.message_id, name), 1, "", 0, root)
            desk.writers[writer.key] = writer
            self._stops.append(partial(desk.writers.pop, writer.key, None))

            def ended(end: int | BaseException, writer: Writer = writer) -> None:
                if isinstance(end, int):
                    writer.end(tell=True)
                else:
                    failed(call, end)

            if isinstance(items, AsyncIterable):
                task = background(self._feed(items, writer, ended), context=self._context.copy())
                self._stops.append(task.cancel)
            else:
                feeder = Feeder(f"prpc-feed-{name}", loop, writer, _opener(items), ended)
                self._stops.append(feeder.close)
                feeder.start(self._context.copy())

    def stop(self) -> None:
        """Send no more: the call has its outcome."""
        stops, self._stops = self._stops, []
        for stop in stops:
            stop()

    async def _feed(self, items: AsyncIterable[Any], writer: Writer, ended: Callable[[int | BaseException], None]) -> None:
        iterator = aiter(items)
        try:
            ended(await feed(iterator, writer))
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            ended(exc)
        finally:
            await _close(iterator)


def _opener(items: Iterable[Any]) -> Callable[[], Iterator[Any]]:
    return lambda: iter(items)


async def _close(iterator: AsyncIterator[Any]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        with suppress(Exception):  # it was asked to end early: nobody is left to tell
            await close()
