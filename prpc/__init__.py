"""PRPC: call functions of another Python program through Redis as if they were local.

The public names are looked up on first use, so that importing the package does no work and loads no broker's driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prpc.app_client import (
        AsyncClient,
        AwaitableTask,
        Client,
        RemoteFunction,
        RemoteStream,
        Stream,
        as_completed,
        gather,
        get_function_server,
        ping,
        progress_bar,
        remote_function,
        remote_stream,
        use_client,
    )
    from prpc.app_server import AppServer
    from prpc.call_context import CurrentCall, current_call
    from prpc.exceptions import (
        BadArgumentsError,
        BrokerUnavailableError,
        CallCancelledError,
        CallError,
        ClientTimeOutError,
        ConfigurationError,
        DeadlineExceededError,
        DecodeError,
        EncodeError,
        FunctionNotFoundError,
        NoServerError,
        PRPCError,
        QueueFullError,
        RegistrationError,
        RemoteError,
        SerializationError,
        ServerShutdownError,
        StaleStubError,
        WorkerLostError,
        WorkerTimeoutError,
    )
    from prpc.progress import Progress
    from prpc.prpcmessage import PRPCMessage

__version__ = "0.1.0"

__all__ = [
    "AppServer",
    "AsyncClient",
    "AwaitableTask",
    "BadArgumentsError",
    "BrokerUnavailableError",
    "CallCancelledError",
    "CallError",
    "Client",
    "ClientTimeOutError",
    "ConfigurationError",
    "CurrentCall",
    "DeadlineExceededError",
    "DecodeError",
    "EncodeError",
    "FunctionNotFoundError",
    "NoServerError",
    "PRPCError",
    "PRPCMessage",
    "Progress",
    "QueueFullError",
    "RegistrationError",
    "RemoteError",
    "RemoteFunction",
    "RemoteStream",
    "SerializationError",
    "ServerShutdownError",
    "StaleStubError",
    "Stream",
    "WorkerLostError",
    "WorkerTimeoutError",
    "__version__",
    "as_completed",
    "current_call",
    "gather",
    "get_function_server",
    "ping",
    "progress_bar",
    "remote_function",
    "remote_stream",
    "use_client",
]

_CLIENT = (
    "AsyncClient AwaitableTask Client RemoteFunction RemoteStream Stream as_completed gather get_function_server ping "
    "progress_bar remote_function remote_stream use_client"
)

#: Where each public name lives; the errors are the rest.
_HOMES = {
    **dict.fromkeys(_CLIENT.split(), "prpc.app_client"),
    "AppServer": "prpc.app_server",
    "CurrentCall": "prpc.call_context",
    "current_call": "prpc.call_context",
    "Progress": "prpc.progress",
    "PRPCMessage": "prpc.prpcmessage",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prpc' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES.get(name, "prpc.exceptions")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
