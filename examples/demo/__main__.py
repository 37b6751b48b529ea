"""The whole of PRPC in one command: broker, server, generated stubs, client. `python -m examples.demo`"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prpc.dev_broker import start_dev_broker

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def say(text: str) -> None:
    """A heading."""
    print(f"\n=== {text}", flush=True)


@contextmanager
def broker() -> Iterator[str]:
    """The URL of the Redis that PRPC_URL_BROKER names, else of one started for the demo."""
    given = os.environ.get("PRPC_URL_BROKER")
    if given:
        say("1. Broker: the one that PRPC_URL_BROKER names")
        yield given
        return
    with start_dev_broker(0) as started:
        say(f"1. Broker: {started.kind} at {started.url}, for this demo only")
        yield started.url


@contextmanager
def server(folder: Path, environ: dict[str, str]) -> Iterator[None]:
    """The server as a process of its own, stopped by SIGTERM at the end."""
    start = time.perf_counter()
    log = (folder / "server.log").open("w")
    process = subprocess.Popen([sys.executable, "server.py"], cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        ready = [sys.executable, "-m", "prpc", "ping", "--wait", "20"]
        subprocess.run(ready, cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL)
        print(f"  python server.py answered its first ping after {time.perf_counter() - start:.2f} s (process {process.pid})")
        yield
    finally:
        process.terminate()
        code = process.wait(30)
        log.close()
    say("5. Server: stopped by SIGTERM")
    lines = (folder / "server.log").read_text().splitlines()
    print(f"  exit code {code}; its log has {len(lines):,} lines, the last calls look like this:")
    print("\n".join("  " + line for line in lines[-4:]))
    if code != 0:
        raise SystemExit(f"the server ended with exit code {code}")


def main() -> None:
    """Run the demo; exits 0 when every step did what it says."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="prpc-demo-") as name, broker() as url:
        folder = Path(name)
        for file in ("server.py", "client.py"):
            shutil.copy(HERE / file, folder)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        queue = f"demo_{os.getpid()}"
        environ = {
            **os.environ,
            "PRPC_TYPE_BROKER": "redis",
            "PRPC_URL_BROKER": url,
            "PRPC_QUEUE_NAME": queue,
            "PYTHONPATH": path,
        }
        say("2. Server: examples/demo/server.py, functions on threads, in processes, on the event loop")
        with server(folder, environ):
            say("3. Stubs: python -m prpc.create_server_func")
            subprocess.run([sys.executable, "-m", "prpc.create_server_func"], cwd=folder, env=environ, check=True)
            lines = (folder / "server_func.py").read_text().splitlines()
            first = next(i for i, line in enumerate(lines) if line.startswith("@remote_function"))
            print("  ...\n" + "\n".join("  | " + line for line in lines[first : first + 12]) + "\n  ...")
            say("4. Client: examples/demo/client.py, which knows nothing but server_func.py")
            subprocess.run([sys.executable, "client.py"], cwd=folder, env=environ, check=True)
    print(f"\nDone in {time.perf_counter() - begun:.1f} s; nothing is left running.")


if __name__ == "__main__":
    main()
