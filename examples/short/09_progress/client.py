"""The caller hears how far its call is: by a callback, and by asking the task."""

import queue

from server_func import bake, eat

from prpc import Progress

reports: queue.Queue[Progress] = queue.Queue()

task = bake(["rye", "spelt", "wheat"])
task.on_progress(reports.put)
for _ in range(3):
    report = reports.get(timeout=20)
    print(f"{report.done} of {report.total}: {report.message}")
    eat().result(timeout=20)

print(task.result(timeout=20))
print("last heard:", task.progress.message if task.progress else None)
