"""What a world needs of its broker, whichever kind that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Side"]


class Side(Protocol):
    """The broker of one run, and a way to look into it that is not the tested one."""

    #: What PRPC_TYPE_BROKER says for it.
    type_broker: str
    #: What is raised while it is away or refuses.
    errors: tuple[type[Exception], ...]
    #: Settings of programs that this broker needs.
    settings: Mapping[str, Any]

    def start(self) -> None:
        """Start it on the run's folder and return when it serves."""
        ...

    async def open(self) -> None:
        """Open what looks into it."""
        ...

    async def aclose(self) -> None:
        """Close what looks into it."""
        ...

    def close(self) -> None:
        """End it, also where it stands still."""
        ...

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        ...

    def url(self, port: int) -> str:
        """What PRPC_URL_BROKER says for it; `port`: where programs reach it."""
        ...

    def broken(self) -> str:
        """What to say where it ended by itself, once; empty while all is well."""
        ...

    async def announced(self, instance: str) -> bool:
        """Whether this server announces itself. Raises one of `errors`."""
        ...

    async def outcomes(self) -> Sequence[tuple[str, str]]:
        """Each outcome that it keeps beside the mail: the call's id, and what stands for the bytes. Raises one of `errors`."""
        ...

    async def left(self) -> str:
        """What is left of the queue; empty where every entry was ended."""
        ...

    async def dead_letters(self) -> Sequence[tuple[str, str]]:
        """The call's id and the reason of each."""
        ...
