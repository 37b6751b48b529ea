"""The message: one call and, once done, its outcome. Its module path is part of the wire format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

__all__ = ["PRPCMessage"]


# Not frozen and without slots: stock jsonpickle restores an instance by setting its attributes.
@dataclass
class PRPCMessage:
    """One call. It is done when `date_done_message` is set; a result of None is a result."""

    #: Name under which the server registered the function.
    func_name: str
    #: Positional arguments; a tuple where PRPC made the call, a list where another writer did.
    func_args: Sequence[Any]
    #: Arguments by keyword.
    func_kwargs: dict[str, Any]
    #: Identity of the call in every broker, log and reply.
    message_id: UUID
    #: When the caller made it, with a time zone.
    date_create_message: datetime
    #: What the function returned; None also while the call is not done.
    result: Any = None
    #: The text of the exception that ended the call; None where it ended well.
    exception_info: str | None = None
    #: When it was done, with a time zone.
    date_done_message: datetime | None = None

    @property
    def is_done(self) -> bool:
        """Whether the call has its outcome."""
        return self.date_done_message is not None

    def done(self, when: datetime, result: Any = None, exception_info: str | None = None) -> PRPCMessage:
        """The same call with its outcome."""
        return replace(self, result=result, exception_info=exception_info, date_done_message=when)
