"""A server is told to stop while a call runs: the call completes, then the server goes."""

import os
import signal
import tempfile
import time
from pathlib import Path

from server_func import process_id, work_until

from prpc import Client

with tempfile.TemporaryDirectory() as folder, Client() as client:
    enough = Path(folder, "enough")
    task = work_until(str(enough))
    os.kill(process_id().result(timeout=20), signal.SIGTERM)

    while not all(server.info["draining"] for server in client.servers()):
        time.sleep(0.05)
    print("draining, and the call still runs:", not task.is_done_task())
    enough.touch()
    print(task.result(timeout=20))

    while client.servers():
        time.sleep(0.05)
    print("the server has gone")
