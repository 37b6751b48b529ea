"""Three time limits: how long the caller waits, how long the call is worth having, how long the function may run."""

from server_func import deliver, endless, wait_for_parcel

import prpc

# 1. The caller's patience. The call goes on, and waiting for it again works.
task = wait_for_parcel()
try:
    task.result(timeout=0.1)
except prpc.ClientTimeOutError:
    print("not yet")
deliver("a book").result(timeout=20)
print("it came:", task.result(timeout=20))

# 2. The function's longest run, set where it is registered.
try:
    endless().result(timeout=20)
except prpc.WorkerTimeoutError as exc:
    print("ended by the server after", exc.timeout, "s")

# 3. The call's deadline. It ends the call on both sides, and the one that notices first names the error:
# ClientTimeOutError, WorkerTimeoutError, or DeadlineExceededError where the function had not begun.
try:
    wait_for_parcel.options(timeout=0.2)().result()
except TimeoutError:
    print("given up on both sides")
