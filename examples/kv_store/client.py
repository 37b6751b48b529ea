"""The store at a distance: `StoreProxy` for programs, `python -m examples.kv_store.client` for lines of text."""

from __future__ import annotations

import io
import json
import signal
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from examples.kv_store import server_func
from examples.kv_store.store import KeyNotFoundError
from prpc import (
    AwaitableTask,
    BrokerUnavailableError,
    Client,
    ClientTimeOutError,
    DeadlineExceededError,
    RemoteError,
    WorkerTimeoutError,
)

T = TypeVar("T")

#: How often `get` is sent before it is given up.
ATTEMPTS = 11
#: Seconds between two of its attempts: the first pause and the longest.
PAUSES = (0.1, 1.0)
#: The calls of the line client, and how many words each takes.
CALLS = {"put": 3, "get": 1, "append": 2, "remove": 1}


class StoreProxy:
    """The store of the queue that the environment names, for any thread. `with` closes its connection; so does the end."""

    def __init__(self, timeout: float = 5.0) -> None:
        """`timeout`: seconds that an answer is waited for."""
        self._client = Client(
            call_timeout=timeout,
            call_retries=ATTEMPTS - 1,
            call_attempt_timeout=timeout,
            call_backoff=PAUSES[0],
            call_backoff_max=PAUSES[1],
        )
        self._put = server_func.put.options(client=self._client)
        self._append = server_func.append.options(client=self._client)
        self._remove = server_func.remove.options(client=self._client)
        self._get = server_func.get.options(client=self._client, timeout=ATTEMPTS * (timeout + PAUSES[1]))
        with suppress(BrokerUnavailableError):  # which a call will say
            self._client.servers()  # connects now, so that the first call has its whole timeout

    def put(self, key: str, value: Any, overwrite: bool) -> bool:
        """Store a value, at most once. False where the key has one and `overwrite` is False: then nothing changed.

        Raises ClientTimeOutError where no answer came in time; the call may have run.
        """
        return _outcome(key, self._put(key, value, overwrite))

    def get(self, key: str) -> Any:
        """The key's value; the call is repeated while no answer comes.

        Raises KeyNotFoundError, and ClientTimeOutError where no attempt was answered.
        """
        return _outcome(key, self._get(key))

    def append(self, key: str, value: Any) -> Any:
        """Make the key's value `old + value`, at most once, and return it.

        Raises KeyNotFoundError, TypeError where the two cannot be added, and ClientTimeOutError as `put`.
        """
        return _outcome(key, self._append(key, value))

    def remove(self, key: str) -> Any:
        """Remove the key, at most once, and return its value. Raises KeyNotFoundError, and ClientTimeOutError as `put`."""
        return _outcome(key, self._remove(key))

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _outcome(key: str, task: AwaitableTask[T]) -> T:
    try:
        return task.result()
    except (DeadlineExceededError, WorkerTimeoutError) as exc:  # the server saw the end of the time first
        raise ClientTimeOutError(f"timeout: {exc}") from exc
    except LookupError as exc:
        if isinstance(exc, RemoteError) and exc.type_name == f"{KeyNotFoundError.__module__}.{KeyNotFoundError.__qualname__}":
            raise KeyNotFoundError(key) from exc  # the class itself, and the text at any length
        raise


def answer(store: StoreProxy, line: str) -> str:
    """What the line client prints for a line: `RESULT <json>` or `ERROR <json string>`."""
    try:
        return "RESULT " + json.dumps(_call(store, line))
    except Exception as exc:
        return "ERROR " + json.dumps(str(exc))


def _call(store: StoreProxy, line: str) -> Any:
    words = [word for word in line.rstrip("\n").split(" ") if word]
    if words[:1] != ["CALL"] or len(words) < 2 or words[1] not in CALLS:
        raise ValueError(f"unknown call {line.strip()!r}: known are " + ", ".join(f"CALL {name}" for name in CALLS))
    name, arguments = words[1], [{"True": True, "False": False}.get(word, word) for word in words[2:]]
    if len(arguments) != CALLS[name]:
        raise ValueError(f"CALL {name} takes {CALLS[name]} words, not {len(arguments)}")
    return getattr(store, name)(*arguments)


def main() -> None:
    """Answer the lines of standard input until its end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lines = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="surrogateescape")
    with StoreProxy() as store:
        for line in lines:
            print(answer(store, line), flush=True)


if __name__ == "__main__":
    main()
