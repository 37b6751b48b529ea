"""Middleware goes around every call of the server: here one refuses, and one changes results."""

from typing import Any

import prpc
from prpc import AppServer
from prpc.server.middleware import IncomingCall, Proceed


async def only_known(call: IncomingCall, proceed: Proceed) -> Any:
    if call.context.headers.get("token") != "let me in":
        raise PermissionError(f"{call.function} wants a token")
    return await proceed(call)


async def rounded(call: IncomingCall, proceed: Proceed) -> Any:
    result = await proceed(call)
    return round(result, 2) if isinstance(result, float) else result


app = AppServer(middleware=[only_known, rounded])


@app.function()
def third(amount: float) -> float:
    return amount / 3


@app.function()
def caller() -> str:
    """Headers travel beside a call without being its arguments."""
    return prpc.current_call().headers["caller"]


if __name__ == "__main__":
    app.start()
