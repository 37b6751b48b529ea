"""The function's own exception arrives as itself; what PRPC has to say has names and facts of its own."""

from server_func import order

import prpc

try:
    order("cocoa").result(timeout=20)
except KeyError as exc:
    print("KeyError:", exc)
    assert isinstance(exc, prpc.RemoteError) and exc.traceback
    print("the server's traceback ends:", exc.traceback.strip().splitlines()[-1])

try:
    order("tea", 100).result(timeout=20)
except ValueError as exc:  # SoldOut is a ValueError, and that class is known everywhere
    assert isinstance(exc, prpc.RemoteError) and exc.type_name
    print(exc.type_name.rpartition(".")[2] + ":", exc)

try:
    prpc.AwaitableTask("order", ["tea", "many"]).result(timeout=20)
except prpc.BadArgumentsError as exc:
    print("did not run, because of the argument", repr(exc.parameter))

try:
    prpc.AwaitableTask("oder", ["tea"]).result(timeout=20)
except prpc.FunctionNotFoundError as exc:
    print("did not run; instead of", repr(exc.function), "there is", exc.nearest)
