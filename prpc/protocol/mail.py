"""Mail beside the replies: what is said about a call while it runs. Which kinds there are, and the kind "progress". No I/O.

Mail is a JSON object whose first member names its kind, so that a reader tells it from a reply by its first bytes.
"""

from __future__ import annotations

import json
import re
from uuid import UUID

from prpc.exceptions import DecodeError
from prpc.progress import Progress

__all__ = ["ITEMS", "MAIL_START", "PROGRESS", "WORDS", "kind_of", "read_progress", "write_progress"]

#: How mail begins; no reply does.
MAIL_START = b'{"prpc_mail"'
#: Kind of the mail that says how far a call is.
PROGRESS = "progress"
#: Kinds of the mail that carries a stream's items, and its reader's words.
ITEMS, WORDS = "items", "words"
#: Bytes of a mail about progress, at most: its text may take twelve for a character, a number some three hundred digits.
MOST_BYTES = 8 * 1024

_KIND = re.compile(rb'\{"prpc_mail" ?: ?"([a-z_]{1,20})"')


def kind_of(body: bytes) -> str | None:
    """Kind of a mail by its first bytes; None where it names none. What follows may be anything."""
    found = _KIND.match(body)
    return None if found is None else found[1].decode()


def write_progress(message_id: UUID, progress: Progress) -> bytes:
    """The mail that tells a caller how far its call is; what is None is left out."""
    said = {"prpc_mail": PROGRESS, "id": str(message_id), "done": progress.done}
    if progress.total is not None:
        said["total"] = progress.total
    if progress.message is not None:
        said["message"] = progress.message
    return json.dumps(said).encode()


def read_progress(body: bytes) -> tuple[UUID, Progress]:
    """The call that a mail is about, and how far it is. Unknown members are left alone. Raises DecodeError."""
    if len(body) > MOST_BYTES:
        raise DecodeError(f"a mail about progress has {len(body)} bytes; {MOST_BYTES} are allowed", reason="size")
    try:
        said = json.loads(body)
        message_id = UUID(said["id"])
        return message_id, Progress(said["done"], said.get("total"), said.get("message"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise DecodeError("a mail about progress cannot be read", reason="form") from exc
