"""The parts of the metrics example without I/O: lines, commands, answers, the store."""

from __future__ import annotations

import pytest

from examples.metrics.protocol import MAX_LINE_BYTES, Get, Lines, Put, found, parse_command
from examples.metrics.store import MetricStore
from examples.metrics.worker import create_app
from prpc.testing import running


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"get palm.cpu", Get("palm.cpu")),
        (b"get *", Get("*")),
        (b"get k\r", Get("k")),
        (b"get k  \t", Get("k")),
        (b"get k \r", Get("k")),
        ("get ключ".encode(), Get("ключ")),
        (b"put k 10 3", Put("k", 10.0, 3)),
        (b"put k 0.5 1150864247\r", Put("k", 0.5, 1150864247)),
        (b"put k -1e-3 -5 ", Put("k", -0.001, -5)),
        (b"put k +.5 +7", Put("k", 0.5, 7)),
        (b"put k 5. 007", Put("k", 5.0, 7)),
        (b"put k 1E3 " + b"9" * 40, Put("k", 1000.0, int("9" * 40))),
        (b"put get 1 1", Put("get", 1.0, 1)),
        (b"put * 1 1", Put("*", 1.0, 1)),
    ],
)
def test_commands(line: bytes, command: object) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"\r",
        b"get",
        b"get ",
        b"put",
        b"GET k",
        b"got k",
        b"get k l",
        b" get k",
        b"get  k",
        b"get\tk",
        b"get k\tl",
        b"get k\r\r",
        b"get k\rl",
        b"get k\x0b",
        "get k\u2028l".encode(),
        "get k\u00a0l".encode(),
        b"get \xff",
        b"get k\xc3",
        b"put k 1",
        b"put k 1 1 1",
        b"put k  1 1",
        b"put  1 1",
        b"put k 1\t1",
        b"put k one 1",
        b"put k 1,5 1",
        b"put k 0x10 1",
        b"put k nan 1",
        b"put k -inf 1",
        b"put k Infinity 1",
        b"put k 1e400 1",
        b"put k 1_0 1",
        b"put k - 1",
        b"put k e 1",
        b"put k 1e 1",
        "put k \u0661 1".encode(),
        b"put k 1 1.0",
        b"put k 1 1e3",
        b"put k 1 1_0",
        b"put k 1 -",
        b"put k 1 +-1",
        b"put k 1 now",
        "put k 1 \u0661".encode(),
        b"put k 1 " + b"9" * 5000,
    ],
)
def test_anything_else_is_no_command(line: bytes) -> None:
    assert parse_command(line) is None


def test_the_longest_line_and_one_more() -> None:
    key = "k" * (MAX_LINE_BYTES - len("get "))
    assert parse_command(f"get {key}".encode()) == Get(key)
    assert parse_command(f"get {key}k".encode()) is None


def test_lines_in_pieces_of_any_size() -> None:
    text = b"get a\nput b 1 2\r\n\nget c\nnot ended"
    for size in range(1, len(text) + 1):
        lines, came = Lines(), []
        for start in range(0, len(text), size):
            came += lines.feed(text[start : start + size])
        assert came == [b"get a", b"put b 1 2\r", b"", b"get c"]
        assert lines.feed(b"\n") == [b"not ended"]


def test_a_line_without_end_keeps_little() -> None:
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * 65536) == []
    (long, after) = lines.feed(b"y\nget k\n")
    assert len(long) == MAX_LINE_BYTES + 1 and parse_command(long) is None
    assert after == b"get k"


def test_answers_are_printed_as_python_prints_them() -> None:
    assert found({}) == b"ok\n\n"
    series = {"timestamps": [-1, 2, 10**30], "values": [10.0, 1e22, -0.0]}
    assert found({"k": series, "ü": {"timestamps": [1], "values": [0.1]}}) == (
        "ok\nk 10.0 -1\nk 1e+22 2\nk -0.0 1000000000000000000000000000000\nü 0.1 1\n\n".encode()
    )


def test_the_store_orders_and_overwrites() -> None:
    store = MetricStore()
    for key, value, timestamp in (("b", 1.0, 9), ("a", 2.0, 5), ("b", 3.0, 2), ("a", 4.0, 5), ("b", 5.0, -1)):
        store.put(key, value, timestamp)
    b, a = {"timestamps": [-1, 2, 9], "values": [5.0, 3.0, 1.0]}, {"timestamps": [5], "values": [4.0]}
    assert store.get("b") == {"b": b} and store.get("c") == {}
    assert list(store.get("*").items()) == [("b", b), ("a", a)]


def test_the_worker_serves_put_and_get() -> None:
    with running(create_app()) as client:
        for key in ("py/tuple", "k", "__proto__"):
            client.call("put", key, 1e16, 2**70).result(20)
        series = {"timestamps": [2**70], "values": [1e16]}
        assert client.call("get", "*").result(20) == {"py/tuple": series, "k": series, "__proto__": series}
        assert found(client.call("get", "k").result(20)) == f"ok\nk 1e+16 {2**70}\n\n".encode()
        assert client.call("get", "nothing").result(20) == {}
    with running(create_app()) as client:
        assert client.call("get", "*").result(20) == {}
