"""What makes items: an iterable, resumed only when there is room for another item, and closed when nobody wants more."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context
from typing import Any, Protocol

__all__ = ["Feeder", "ItemSink", "feed"]


class ItemSink(Protocol):
    """Where items go. Its methods belong to the loop's thread, except what says otherwise."""

    @property
    def count(self) -> int:
        """Items put so far."""
        ...

    def encode(self, value: Any) -> bytes:
        """The next item as text. From any thread. Raises EncodeError."""
        ...

    def allows(self, count: int, pending: int = 0) -> bool:
        """Whether one more item may be made, with `count` made and `pending` bytes of them not put yet. From any thread."""
        ...

    def put(self, text: bytes) -> None:
        """Send the item."""
        ...

    def on_room(self, wake: Callable[[], object]) -> None:
        """Call `wake` whenever there may be more room; replaces an earlier one."""
        ...


async def feed(items: AsyncIterator[Any], sink: ItemSink) -> int:
    """Put every item into the sink; returns their number. `items` is not closed."""
    room = asyncio.Event()
    sink.on_room(room.set)
    while True:
        while not sink.allows(sink.count):
            room.clear()
            await room.wait()
        try:
            item = await anext(items)
        except StopAsyncIteration:
            return sink.count
        sink.put(sink.encode(item))


class Feeder:
    """The same for a plain iterable, in a thread of its own. One wake-up of the loop serves all items that wait there."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        sink: ItemSink,
        open_items: Callable[[], Iterator[Any]],
        ended: Callable[[int | BaseException], None],
    ) -> None:
        """`open_items` is called in the thread; its iterator is closed there if it can be. `ended` is told in the loop the number
        of items, or what was raised instead."""
        self._loop, self._sink, self._open, self._ended = loop, sink, open_items, ended
        self._texts: deque[bytes] = deque()
        #: Guards what follows; its waiter is the thread.
        self._changed = threading.Condition()
        self._pending = 0
        self._waking = self._closed = False
        self._end: int | BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._context: Context | None = None

    def start(self, context: Context | None = None) -> None:
        """Begin, in this context."""
        self._context = context
        self._sink.on_room(self._tell)
        try:
            self._thread.start()
        except RuntimeError as exc:  # the system gives no more threads
            self._loop.call_soon(self._ended, exc)

    def close(self) -> None:
        """Have the thread close the iterator as soon as that yields or waits for room; nothing of it is sent any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify()

    # In the thread.

    def _run(self) -> None:
        try:
            end: int | BaseException = self._produce() if self._context is None else self._context.run(self._produce)
        except BaseException as exc:
            end = exc
        with self._changed:
            self._end = end
            self._wake()

    def _produce(self) -> int:
        items, count, encode = self._open(), 0, self._sink.encode
        try:
            while self._may_go_on(count):
                try:
                    item = next(items)
                except StopIteration:
                    break
                count += 1
                self._hand_over(encode(item))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        return count

    def _may_go_on(self, count: int) -> bool:
        with self._changed:
            while not self._closed and not self._sink.allows(count, self._pending):
                self._changed.wait()
            return not self._closed

    def _hand_over(self, text: bytes) -> None:
        with self._changed:
            self._texts.append(text)
            self._pending += len(text)
            self._wake()

    def _wake(self) -> None:
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                self._closed = True

    # In the loop.

    def _drain(self) -> None:
        with self._changed:
            self._waking = False
            texts, self._texts, self._pending = self._texts, deque(), 0
            end, closed = self._end, self._closed
        if not closed:
            for text in texts:
                self._sink.put(text)
        if end is not None:
            self._ended(end)
        elif texts:
            self._tell()
