"""`idempotent=True` says that a function may run twice: its calls are repeated until one run has answered."""

from server_func import raise_price, set_price

import prpc

# The worker is lost, another one runs the call again.
print(set_price("tea", 300).result(timeout=60))

# The client repeats as well, where no answer comes in time: up to 5 times, each attempt after 10 seconds.
print(set_price.options(retries=5, attempt_timeout=10)("bun", 50).result(timeout=60))

# Any other function is not run again. Its caller hears that nobody knows how far it came.
try:
    raise_price("tea", 20).result(timeout=60)
except prpc.WorkerLostError as exc:
    print("lost:", exc.function)

try:
    raise_price.options(retries=5)
except ValueError as exc:
    print("refused:", str(exc).partition(":")[0])
