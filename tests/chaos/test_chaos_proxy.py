"""The proxy carries, cuts at the byte it was told, and stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.proxy import Proxy

Talk = Callable[[Proxy, list[bytes]], Awaitable[None]]


def with_proxy(talk: Talk) -> list[bytes]:
    """Run `talk` against an echo behind a proxy; returns what the echo got, one text for each connection."""
    got: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(got)
        got.append(b"")
        try:
            while data := await reader.read(100):
                got[number] += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with asyncio.timeout(20), Proxy(server.sockets[0].getsockname()[1]) as proxy:
            await talk(proxy, got)
        server.close()

    asyncio.run(run())
    return got


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("how", ["fuse", "budget"])
def test_a_cut_lets_through_exactly_the_bytes_before_it(how: str, count: int) -> None:
    async def talk(proxy: Proxy, got: list[bytes]) -> None:
        if how == "budget":
            proxy.budgets = (lambda: count, lambda: None)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        burnt = proxy.light_fuse(count, up=True) if how == "fuse" else None
        writer.write(b"abcdef")
        assert b"abcdef".startswith(await reader.read())
        assert burnt is None or burnt.is_set()
        assert proxy.cuts == 1
        writer.close()

    assert with_proxy(talk) == [b"abcdef"[:count]]


def test_the_way_back_is_counted_on_its_own() -> None:
    async def talk(proxy: Proxy, got: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.light_fuse(2, up=False)
        writer.write(b"abcdef")
        assert await reader.read() == b"ab"
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"next")
        assert await reader.readexactly(4) == b"next"
        writer.close()

    assert with_proxy(talk) == [b"abcdef", b"next"]


def test_a_frozen_proxy_keeps_what_comes_and_hands_it_on_later() -> None:
    async def talk(proxy: Proxy, got: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        proxy.freeze()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(3), 0.05)
        assert got == [b"one"]
        proxy.thaw()
        assert await reader.readexactly(3) == b"two"
        writer.close()

    assert with_proxy(talk) == [b"onetwo"]


def test_cut_all_ends_every_connection_and_takes_new_ones() -> None:
    async def talk(proxy: Proxy, got: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x")
        await reader.readexactly(1)
        proxy.cut_all()
        assert await reader.read() == b""
        writer.close()
        proxy.delay = 0.001
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()

    assert with_proxy(talk) == [b"x", b"y"]
