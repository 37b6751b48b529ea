"""The key-value store as its users run it: real processes over a real Redis and a real Kafka."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from examples.kv_store import server_func
from examples.kv_store.client import StoreProxy
from examples.kv_store.store import KeyNotFoundError
from prpc import BadArgumentsError, ClientTimeOutError, RemoteError
from tests.examples.kv_kit import CODEC, KINDS, PATIENCE, ROOT, Place, generated_stubs, place_on, stubs_in, until

pytestmark = pytest.mark.timeout(150)

SERVER = "examples.kv_store.server"

#: Takes a call of get and keeps it.
KEEPER = """
import threading
from prpc import AppServer

app = AppServer()

@app.function(idempotent=True)
def get(key: str) -> None:
    print("took", flush=True)
    threading.Event().wait()

app.start()
"""


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One server for the tests that do nothing to it; each has keys of its own."""
    with place_on(request.param, request) as place:
        place.serve(SERVER)
        yield place


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A queue without a server."""
    with place_on(request.param, request) as place:
        yield place


def proxy(place: Place, monkeypatch: pytest.MonkeyPatch, timeout: float = PATIENCE) -> StoreProxy:
    for name, value in place.variables.items():
        monkeypatch.setenv(name, value)
    return StoreProxy(timeout=timeout)


@pytest.fixture
def store(served: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreProxy]:
    with proxy(served, monkeypatch) as store:
        yield store


# -- what the calls do -------------------------------------------------------------------------------------------------


def test_put_stores_and_overwrites_only_when_told_to(store: StoreProxy) -> None:
    assert store.put("put", 1, False) is True
    assert store.put("put", 2, False) is False
    assert store.get("put") == 1
    assert store.put("put", 3, True) is True
    assert store.get("put") == 3


@pytest.mark.parametrize(
    ("old", "more", "new"), [("a", "b", "ab"), ([1], [2, None], [1, 2, None]), (1, 2.5, 3.5), ("", "x" * 200_000, "x" * 200_000)]
)
def test_append_adds_as_python_does_and_gives_the_new_value(store: StoreProxy, old: object, more: object, new: object) -> None:
    store.put("append", old, True)
    assert store.append("append", more) == new
    assert store.get("append") == new


def test_remove_gives_the_old_value(store: StoreProxy) -> None:
    store.put("remove", {"a": [1, None]}, True)
    assert store.remove("remove") == {"a": [1, None]}
    with pytest.raises(KeyNotFoundError):
        store.get("remove")


@pytest.mark.parametrize("key", ["k", "", "two words", "Schlüssel 🔑", "line\nline\r\n\0", "\ud800", "'\"\\", "k" * 150_000])
def test_any_text_is_a_key_and_a_missing_one_says_so(store: StoreProxy, key: str) -> None:
    for call in (store.get, store.remove, lambda missing: store.append(missing, "x")):
        with pytest.raises(KeyNotFoundError) as caught:
            call(key)
        assert str(caught.value) == f"Key {key} not found"
    assert store.put(key, key, False) is True
    assert store.get(key) == key
    assert store.remove(key) == key


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**70), 1.5e300, "", {}, [], {"py/object": "os.system", "": [{}]}, ["é" * 50_000, list(range(9999))]],
)
def test_any_json_value_comes_back_as_it_was(store: StoreProxy, value: object) -> None:
    store.put("value", value, True)
    assert store.get("value") == value
    assert type(store.get("value")) is type(value)


def test_errors_of_the_service_come_with_their_own_text(store: StoreProxy) -> None:
    store.put("number", 1, True)
    with pytest.raises(TypeError) as caught:
        store.append("number", "x")
    assert str(caught.value) == "unsupported operand type(s) for +: 'int' and 'str'"
    assert isinstance(caught.value, RemoteError)
    assert store.get("number") == 1
    with pytest.raises(BadArgumentsError, match="key"):
        store.get(7)  # type: ignore[arg-type]


def test_append_is_atomic_across_clients(served: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [proxy(served, monkeypatch) for _ in range(4)]
    stores[0].put("log", "", True)

    def write(store: StoreProxy) -> list[int]:
        return [len(store.append("log", "x")) for _ in range(25)]

    with ThreadPoolExecutor(4) as threads:
        lengths = [length for part in threads.map(write, stores) for length in part]
    assert sorted(lengths) == list(range(1, 101))
    for store in stores:
        store.close()


# -- what is lost or doubled -------------------------------------------------------------------------------------------


def test_without_a_server_calls_end_with_a_timeout(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(place, monkeypatch, timeout=0.3) as store:
        for call in (lambda: store.put("k", 1, True), lambda: store.append("k", 1), lambda: store.remove("k")):
            with pytest.raises(ClientTimeOutError, match="timeout"):
                call()
    assert len(place.entries()) == 3  # each was sent once


@pytest.mark.real_redis
def test_a_get_that_nobody_answers_is_sent_ten_times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    with place_on("redis", request) as place, proxy(place, monkeypatch, timeout=0.2) as store:
        with pytest.raises(ClientTimeOutError, match="timeout") as caught:
            store.get("k")
        assert caught.value.attempts is not None and caught.value.attempts >= 10
        assert len(place.entries()) == caught.value.attempts


def test_get_gives_up_within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRPC_TYPE_BROKER", "memory")
    with StoreProxy(timeout=1) as store:
        options = store._get._options
        assert options.timeout is not None and options.timeout <= 60


def test_calls_of_the_client_that_stand_twice_run_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(place, monkeypatch) as store, ThreadPoolExecutor(1) as thread:
        put = thread.submit(store.put, "log", "", False)
        until(lambda: len(place.entries()) == 1)
        entry = place.entries()[0]
        place.put(entry)
        place.serve(SERVER)
        assert put.result() is True
        append = store._append("log", "x")
        copies = [entry, {"message": CODEC.write_call(append.message)}]
        assert append.result() == "x"
        for copy in copies:
            place.put(copy)
        until(place.settled)
        assert store.get("log") == "x"
        remove = store._remove("log")
        copies.append({"message": CODEC.write_call(remove.message)})
        assert remove.result() == "x"
        for copy in copies:
            place.put(copy)
        until(place.settled)
        with pytest.raises(KeyNotFoundError):
            store.get("log")
        store.put("log", "new", True)
        place.put(copies[-1])
        until(place.settled)
        assert store.get("log") == "new"


def test_a_copy_never_replaces_the_stored_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {
        "put": (place.foreign("put", "a", 1, False), True),
        "append": (place.foreign("append", "log", "x"), "x"),
        "remove": (place.foreign("remove", "old"), "gone"),
    }
    place.serve(SERVER)
    with proxy(place, monkeypatch) as store:
        store.put("log", "", True)
        store.put("old", "gone", True)
        for _ in range(2):
            for (entry, _), _ in calls.values():
                place.put(entry)
                place.put(entry)
            until(place.settled)
            for (_, message_id), first in calls.values():
                answers = place.stored(message_id)
                assert answers and all(answer == first for answer in answers)
            assert store.get("log") == "x"
            store.put("old", "new", True)
        assert store.get("old") == "new"


@pytest.mark.real_redis
def test_a_get_whose_calls_are_lost_is_repeated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Redis an entry can be taken away before anybody has seen it."""
    with place_on("redis", request) as place, proxy(place, monkeypatch, timeout=1) as store, ThreadPoolExecutor(1) as thread:
        redis, stream = place.harness.client, place.harness.names.calls
        got = thread.submit(store.get, "k")
        for _ in range(3):
            until(lambda: redis.xlen(stream) == 1)
            redis.xtrim(stream, maxlen=0, approximate=False)
        place.serve(SERVER)
        with pytest.raises(KeyNotFoundError):
            got.result()


def test_a_get_whose_answer_is_lost_is_repeated(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that took it is killed before it answers; the next one has no such key."""
    keeper = place.start("-c", KEEPER)
    with proxy(place, monkeypatch, timeout=2) as store, ThreadPoolExecutor(1) as thread:
        got = thread.submit(store.get, "k")
        assert keeper.stdout is not None and keeper.stdout.readline() == "took\n"
        place.kill(keeper)
        place.serve(SERVER)
        with pytest.raises(KeyNotFoundError):
            got.result()


# -- the programs ------------------------------------------------------------------------------------------------------


def test_the_line_client_answers_each_line(served: Place) -> None:
    lines = {
        "CALL put line hello True": True,
        "CALL get line": "hello",
        "CALL put line bye False": False,
        "CALL append line _ü": "hello_ü",
        "CALL put flag True True": True,
        "CALL get flag": True,
        "CALL put number 12 True": True,
        "CALL append number 3": "123",
        "CALL remove line": "hello_ü",
    }
    wrong = {
        "CALL get line": "Key line not found",
        "CALL append flag x": "unsupported operand type(s) for +: 'bool' and 'str'",
        "CALL list": None,
        "CALL get": None,
        "CALL put a b": None,
        "CALL put a two words True": None,
        "call get flag": None,
        "GET flag": None,
        "CALL": None,
        "": None,
        "CALL close": None,
        "CALL put a b maybe": None,
    }
    done = subprocess.run(
        [sys.executable, "-m", "examples.kv_store.client"],
        input="".join(line + "\n" for line in (*lines, *wrong)).encode(),
        cwd=ROOT,
        env={**served.environ(), "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    printed = [line.partition(" ") for line in done.stdout.decode("ascii").splitlines()]
    assert [kind for kind, _, _ in printed] == ["RESULT"] * len(lines) + ["ERROR"] * len(wrong)
    answers = [json.loads(text) for _, _, text in printed]
    assert answers[: len(lines)] == list(lines.values())
    for expected, text in zip(wrong.values(), answers[len(lines) :], strict=True):
        assert isinstance(text, str) and text == (expected or text)


def test_the_line_client_answers_at_once_and_ends_with_sigterm(served: Place) -> None:
    client = served.start("-m", "examples.kv_store.client")
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write("CALL put at_once 1 True\n")
    client.stdin.flush()
    assert client.stdout.readline() == "RESULT true\n"
    assert served.stop(client) == 0


def test_the_committed_stubs_are_those_of_the_server(served: Place, tmp_path: Path) -> None:
    assert generated_stubs(served, tmp_path) == stubs_in(Path(server_func.__file__))


def test_the_snippet_of_the_readme_runs(served: Place) -> None:
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "examples/kv_store/README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=ROOT, env=served.environ(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello world\n", "")
