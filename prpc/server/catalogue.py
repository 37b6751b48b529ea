"""What a server says of its functions: the description that stubs are generated from, and its hashes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from prpc.server.registry import RegisteredFunction, Registry
from prpc.stubs.signature import describe_function, function_schema, server_schema
from prpc.workers.base import WorkerKind

__all__ = ["Catalogue"]


def ping() -> str:
    """Answers "pong": a server is there and reads its queue."""
    return "pong"


class Catalogue:
    """Descriptions of the registered functions, made once when first asked for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @functools.cached_property
    def descriptions(self) -> list[dict[str, Any]]:
        """One plain dict per function: `ping` first, then in the order of registration."""
        return [_describe(RegisteredFunction("ping", ping, WorkerKind.ASYNC)), *(_describe(f) for f in self._registry)]

    @functools.cached_property
    def _schemas(self) -> dict[str, str]:
        return {d["func_name"]: function_schema(d) for d in self.descriptions}

    def schema_of(self, name: str) -> str | None:
        """Hash of one function's signature; None for a function that is not here."""
        return self._schemas.get(name)

    @functools.cached_property
    def schema(self) -> str:
        """Hash over all functions."""
        return server_schema(self.descriptions)

    @property
    def built_ins(self) -> dict[str, Callable[[], Any]]:
        """The functions that every server answers itself."""
        return {"ping": ping, "get_function_server": lambda: self.descriptions}


def _describe(function: RegisteredFunction) -> dict[str, Any]:
    return describe_function(
        function.function,
        name=function.name,
        worker=function.kind.value,
        idempotent=function.idempotent,
        timeout=function.timeout,
        broadcast=function.broadcast,
    )
