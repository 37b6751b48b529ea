"""The metrics example as it runs: worker, gateway and client are processes of their own, on a real Redis and a real Kafka."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest
from metrics_kit import OK, UNAVAILABLE, WRONG, Metrics, Talk

from examples.metrics.client import Client, ClientError
from prpc.settings import Settings

BROKERS = (pytest.param("redis", marks=pytest.mark.real_redis), pytest.param("kafka", marks=pytest.mark.real_kafka))
#: A lost server is noticed soon, so that on Kafka the next one gets its partitions.
FAST = {"PRPC_REDIS_HEARTBEAT_INTERVAL_SEC": "0.5", "PRPC_REDIS_RECOVER_INTERVAL_SEC": "2.5"}


def settings_on(request: pytest.FixtureRequest) -> Settings:
    kind = request.param
    url = request.getfixturevalue("redis_url" if kind == "redis" else "kafka_bootstrap")
    return Settings(type_broker=kind, url_broker=url, queue_name=f"metrics_{uuid4().hex}")


@pytest.fixture(scope="module", params=BROKERS)
def shared(request: pytest.FixtureRequest) -> Iterator[Metrics]:
    """A system for tests that use keys of their own and leave it as it was."""
    metrics = Metrics.on(settings_on(request))
    try:
        metrics.start_worker()
        metrics.start_gateway()
        yield metrics
    finally:
        metrics.close()


@pytest.fixture(params=BROKERS)
def metrics(request: pytest.FixtureRequest) -> Iterator[Metrics]:
    """A system that the test starts, and may harm."""
    metrics = Metrics.on(settings_on(request), **FAST)
    yield metrics
    metrics.close()


@pytest.fixture
def key() -> str:
    return f"k{uuid4().hex}"


def test_puts_and_gets(shared: Metrics, key: str) -> None:
    put, get = f"put {key}".encode(), f"get {key}".encode()
    assert shared.ask(get) == [OK]
    assert shared.ask(put + b" 10 5", put + b" -0.25 -3", put + b" 1e22 7", put + b" 1 5") == [OK] * 4
    assert shared.ask(get) == [f"ok\n{key} -0.25 -3\n{key} 1.0 5\n{key} 1e+22 7\n\n".encode()]
    other = f"a{key}"
    assert shared.ask(f"put {other} 1 1".encode(), put + b" 2 " + str(2**80).encode()) == [OK, OK]
    (everything,) = shared.ask(b"get *")
    lines = [line for line in everything.decode().splitlines() if key in line]
    assert lines == [f"{key} -0.25 -3", f"{key} 1.0 5", f"{key} 1e+22 7", f"{key} 2.0 {2**80}", f"{other} 1.0 1"]


def test_wrong_commands_leave_the_connection_usable(shared: Metrics, key: str) -> None:
    wrong = [b"", b"heyo", b"get", b"get  k", b"put k 1", b"put k x 1", b"put k 1 1.5", b"put k nan 1", b"get \xff\xfe", b"\x00"]
    with shared.talk() as talk:
        for command in wrong:
            assert talk.ask(command) == [WRONG]
            assert talk.ask(f"get {key}".encode()) == [OK]
        assert talk.ask(*wrong) == [WRONG] * len(wrong)


def test_commands_in_pieces_and_joined(shared: Metrics, key: str) -> None:
    text = f"put {key} 1 1\r\nnonsense\nput {key} 2 2  \nget {key} \r\n".encode()
    replies = [OK, WRONG, OK, f"ok\n{key} 1.0 1\n{key} 2.0 2\n\n".encode()]
    with shared.talk() as talk:
        talk.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(text)):
            talk.send(text[index : index + 1])
        assert [talk.reply() for _ in replies] == replies
        talk.send(text * 20)
        assert [talk.reply() for _ in replies * 20] == replies * 20


def test_each_command_sees_what_the_ones_before_it_did(shared: Metrics, key: str) -> None:
    commands, replies = [], []
    for number in range(100):
        commands += [f"put {key} {number} 1".encode(), f"get {key}".encode()]
        replies += [OK, f"ok\n{key} {number}.0 1\n\n".encode()]
    assert shared.ask(*commands) == replies


def test_what_was_sent_before_the_end_is_answered(shared: Metrics, key: str) -> None:
    with shared.talk() as talk:
        talk.send(f"put {key} 1 1\nget {key}\nput {key} 2 2".encode())  # the last one has no end and is none
        talk.connection.shutdown(socket.SHUT_WR)
        assert talk.rest() == OK + f"ok\n{key} 1.0 1\n\n".encode()


def test_a_put_without_waiting_for_its_answer(shared: Metrics, key: str) -> None:
    with shared.talk() as talk:
        talk.send(f"put {key} 1 1\n".encode() * 50 + f"put {key} 2 2\n".encode())
    while shared.ask(f"get {key}".encode()) != [f"ok\n{key} 1.0 1\n{key} 2.0 2\n\n".encode()]:
        pass


def test_a_line_of_megabytes_is_one_wrong_command(shared: Metrics, key: str) -> None:
    with shared.talk() as talk:
        for _ in range(64):
            talk.send(b"put x" * 20_000)
        assert talk.ask(b"", f"get {key}".encode()) == [WRONG, OK]


def test_long_keys_and_large_answers(shared: Metrics, key: str) -> None:
    long = key + "ж" * 10_000
    commands = [f"put {long} {number} {number}".encode() for number in range(50)]
    assert shared.ask(*commands) == [OK] * 50
    answer = "ok\n" + "".join(f"{long} {number}.0 {number}\n" for number in range(50)) + "\n"
    assert len(answer.encode()) > 1_000_000
    assert shared.ask(f"get {long}".encode()) == [answer.encode()]


def test_a_client_that_does_not_read_holds_up_nobody(shared: Metrics, key: str) -> None:
    long = key + "k" * 50_000
    with shared.talk() as greedy:
        assert greedy.ask(f"put {long} 1 1".encode()) == [OK]
        greedy.send(f"get {long}\n".encode() * 200)  # ten megabytes that nobody reads
        assert shared.ask(f"get {key}".encode()) == [OK]


def test_many_connections_at_once(shared: Metrics, key: str) -> None:
    async def open_one() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", shared.port)

    async def busy(number: int) -> None:
        reader, writer = await open_one()
        mine = f"{key}.{number}"
        expected = "ok\n"
        for turn in range(10):
            writer.write(f"put {mine} {turn} {turn}\n".encode())
            assert await reader.readuntil(b"\n\n") == OK
            expected += f"{mine} {turn}.0 {turn}\n"
            writer.write(f"get {mine}\n".encode())
            assert await reader.readuntil(b"\n\n") == expected.encode() + b"\n"
        writer.close()
        await writer.wait_closed()

    async def scenario() -> None:
        idle = [await open_one() for _ in range(150)]
        await asyncio.gather(*(busy(number) for number in range(40)))
        for reader, writer in idle:
            writer.write(f"get {key}\n".encode())
            assert await reader.readuntil(b"\n\n") == OK
            writer.close()
            await writer.wait_closed()

    asyncio.run(asyncio.wait_for(scenario(), 100))


def test_the_client_and_the_server(shared: Metrics, key: str) -> None:
    client = Client("127.0.0.1", shared.port, timeout=30)
    assert client.get(key) == {}
    client.put(key, 301, timestamp=3)
    client.put(key, 0.5, timestamp=1)
    client.put(key, 2, timestamp=1)
    assert client.get(key) == {key: [(1, 2.0), (3, 301.0)]}
    assert client.get("*")[key] == client.get(key)[key]
    client.put(f"{key}.now", -1)
    with pytest.raises(ClientError, match=r"^wrong command$"):
        client.put(key, float("nan"))


def test_every_command_is_a_call(metrics: Metrics) -> None:
    worker = metrics.start_worker()
    metrics.start_gateway()
    assert metrics.ask(b"put k 1 1", b"get k", b"nonsense", b"get *") == [OK, b"ok\nk 1.0 1\n\n", WRONG, b"ok\nk 1.0 1\n\n"]
    assert worker.end(signal.SIGTERM) == 0
    calls = [line for line in worker.output.splitlines() if " put() " in line or " get() " in line]
    assert len(calls) == 3, worker.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_without_a_worker_every_answer_is_an_error(metrics: Metrics, number: int) -> None:
    worker = metrics.start_worker()
    metrics.start_gateway()
    with metrics.talk() as talk:
        assert talk.ask(b"put k 1 1") == [OK]
        worker.end(number)
        commands = [b"put k 2 2", b"nonsense", b"get *", b"get k", b"put k 3 3"]
        assert talk.ask(*commands) == [UNAVAILABLE, WRONG, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE]
        assert talk.ask(b"get k") == [UNAVAILABLE]
        metrics.start_worker()
        until_served(talk)
        # Its memory is its own, and none of what was answered with an error is done later.
        assert talk.ask(b"get *") == [OK]


def test_a_worker_that_freezes_does_no_late_put(metrics: Metrics) -> None:
    worker = metrics.start_worker()
    metrics.start_gateway()
    with metrics.talk() as talk:
        assert talk.ask(b"put k 1 1") == [OK]
        worker.send_signal(signal.SIGSTOP)
        assert talk.ask(b"put k 2 2", b"put l 3 3") == [UNAVAILABLE] * 2
        worker.send_signal(signal.SIGCONT)
        until_served(talk)
        assert talk.ask(b"get *") == [b"ok\nk 1.0 1\n\n"]


def until_served(talk: Talk) -> None:
    while talk.ask(b"get nothing") != [OK]:
        pass


def test_a_gateway_that_starts_before_its_worker(metrics: Metrics) -> None:
    metrics.start_gateway()
    with metrics.talk() as talk:
        assert talk.ask(b"put k 1 1", b"get k") == [UNAVAILABLE] * 2
        metrics.start_worker()
        until_served(talk)
        assert talk.ask(b"put k 1 1", b"get k") == [OK, b"ok\nk 1.0 1\n\n"]


def test_sigterm_ends_both_cleanly_and_answers_what_came(metrics: Metrics) -> None:
    worker, gateway = metrics.start_worker(), metrics.start_gateway()
    with metrics.talk() as idle, metrics.talk() as busy:
        assert idle.ask(b"put k 1 1") == busy.ask(b"get l") == [OK]
        worker.send_signal(signal.SIGSTOP)
        busy.send(b"get k\n")
        assert metrics.ask(b"nonsense") == [WRONG]  # what was sent before has come
        gateway.send_signal(signal.SIGTERM)
        assert idle.rest() == b""
        worker.send_signal(signal.SIGCONT)
        assert busy.rest() in (b"ok\nk 1.0 1\n\n", UNAVAILABLE)
    assert gateway.wait() == 0 and "Traceback" not in gateway.output
    assert worker.end(signal.SIGTERM) == 0 and "Traceback" not in worker.output
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", metrics.port), 30)


def test_sigterm_while_a_client_does_not_read(metrics: Metrics) -> None:
    metrics.start_worker()
    gateway = metrics.start_gateway()
    long = b"k" * 50_000
    with metrics.talk() as greedy:
        assert greedy.ask(b"put " + long + b" 1 1") == [OK]
        greedy.send((b"get " + long + b"\n") * 200)  # ten megabytes that nobody reads
        assert metrics.ask(b"nonsense") == [WRONG]
        assert gateway.end(signal.SIGTERM) == 0 and "Traceback" not in gateway.output


def test_without_a_broker_every_answer_is_an_error() -> None:
    nowhere = Settings(type_broker="redis", url_broker="redis://127.0.0.1:1/0", queue_name="metrics_nowhere")
    metrics = Metrics.on(nowhere, PRPC_CONNECT_TIMEOUT_SEC="1")
    try:
        gateway = metrics.start_gateway()
        assert metrics.ask(b"put k 1 1", b"nonsense", b"get *") == [UNAVAILABLE, WRONG, UNAVAILABLE]
        assert metrics.ask(b"get *") == [UNAVAILABLE]
        assert gateway.end(signal.SIGTERM) == 0 and "Traceback" not in gateway.output
    finally:
        metrics.close()


def test_sigterm_while_the_broker_keeps_it_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        metrics = Metrics.on(Settings(type_broker="redis", url_broker=url, queue_name="metrics_silent"))
        try:
            gateway = metrics.start("-m", "examples.metrics.server", "--port", "0")
            connection, _ = silent.accept()
            with connection:
                assert gateway.end(signal.SIGTERM) == 0
            assert "Traceback" not in gateway.output and "listens" not in gateway.output
        finally:
            metrics.close()


def test_the_address_may_come_from_the_environment(shared: Metrics, key: str) -> None:
    metrics = Metrics({**shared.environ, "METRICS_HOST": "localhost", "METRICS_PORT": "0"})
    try:
        gateway = metrics.start("-m", "examples.metrics.server")
        metrics.port = int(gateway.until(r"listens on 127\.0\.0\.1:(\d+)$")[1])
        assert metrics.ask(f"put {key} 1 1".encode()) == [OK]
        assert shared.ask(f"get {key}".encode()) == [f"ok\n{key} 1.0 1\n\n".encode()]
    finally:
        metrics.close()


def test_run_server_in_a_thread_of_a_program(shared: Metrics) -> None:
    code = """
import socket, threading, time
from examples.metrics.server import run_server

with socket.create_server(("127.0.0.1", 0)) as found:
    port = found.getsockname()[1]
threading.Thread(target=run_server, args=("127.0.0.1", port), daemon=True).start()
while True:
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"get nothing\\n")
            print(connection.recv(100), flush=True)
        break
    except ConnectionRefusedError:
        time.sleep(0.01)
"""
    program = shared.start("-c", code)
    assert program.wait() == 0
    assert program.output.startswith("metrics server listens") and "b'ok\\n\\n'" in program.output
