"""How long a reader waits for items that were sent before the outcome of their call and do not come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import monotonic
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

import prpc.client.stream
from prpc.client.options import CallOptions
from prpc.client.readings import Reading, StreamCall
from prpc.client.stream import Stream
from prpc.codec import ReadReply
from prpc.exceptions import ClientTimeOutError, WorkerLostError
from prpc.prpcmessage import PRPCMessage


def open_stream(deadline: float) -> Stream[Any]:
    """The stream of a call that runs; `deadline`: seconds from now."""
    message_id, now = uuid4(), datetime.now(UTC)
    streams = SimpleNamespace(speak=lambda _: None, let_go=lambda _: None)
    home: Any = SimpleNamespace(loop=asyncio.get_running_loop(), streams=streams, check_wait=lambda _: None)
    reading = Reading(message_id, 8)
    call = StreamCall(PRPCMessage("numbers", (), {}, message_id, now), None, CallOptions(), None, home, reading)
    call.timeout, call.expires = 1.0, monotonic() + deadline
    client: Any = SimpleNamespace(channel=SimpleNamespace(submit_stream=lambda *_: call))
    return Stream("numbers", client=client)


def end(stream: Stream[Any]) -> None:
    """Its call ends after three items, of which none has come."""
    reply = ReadReply(stream.call.message_id, 3, None, datetime.now(UTC))
    stream.call.reading.conclude(reply)
    stream.call.end(reply)
    stream.call.notify()


def ended_with_items_missing(deadline: float) -> Stream[Any]:
    stream = open_stream(deadline)
    end(stream)
    return stream


async def error_of(stream: Stream[Any]) -> BaseException:
    with pytest.raises((ClientTimeOutError, WorkerLostError)) as caught:
        await stream.async_next()
    with pytest.raises(StopAsyncIteration):
        await stream.async_next()
    return caught.value


def test_the_deadline_ends_the_waiting() -> None:
    async def main() -> None:
        error = await error_of(ended_with_items_missing(0.01))
        assert isinstance(error, ClientTimeOutError)
        assert str(error) == "the last 3 items of numbers() did not come within its timeout of 1 s"

    asyncio.run(main())


def test_who_waited_before_the_deadline_waits_no_longer_although_the_outcome_comes_a_little_later() -> None:
    async def main() -> None:
        stream = open_stream(60.0)
        waiting = asyncio.ensure_future(error_of(stream))
        await asyncio.sleep(0)
        stream.call.expires = monotonic()
        end(stream)
        assert isinstance(await asyncio.wait_for(waiting, 5), ClientTimeOutError)

    asyncio.run(main())


@pytest.mark.parametrize("deadline", [-1.0, 60.0])
def test_else_the_server_counts_as_lost(deadline: float, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        error = await error_of(ended_with_items_missing(deadline))
        assert isinstance(error, WorkerLostError)
        assert str(error) == "the server of numbers() was lost with the last 3 items of the stream"

    monkeypatch.setattr(prpc.client.stream, "_LAST_ITEMS", 0.01)
    asyncio.run(main())
