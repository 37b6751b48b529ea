"""Middleware of a client goes around every call that it sends: here it adds headers."""

import dataclasses
from typing import Any

from server_func import caller, third

from prpc import Client, use_client
from prpc.app_client import OutgoingCall, Proceed


async def with_token(call: OutgoingCall, proceed: Proceed) -> Any:
    headers = {**call.headers, "token": "let me in", "caller": "bookkeeping"}
    return await proceed(dataclasses.replace(call, headers=headers))


try:
    third(10).result(timeout=20)
except PermissionError as exc:
    print("PermissionError:", exc)

with Client(middleware=[with_token]) as client:
    use_client(client)  # all stubs send through it from here on
    print(third(10).result(timeout=20))
    print(caller().result(timeout=20))
    use_client(None)
