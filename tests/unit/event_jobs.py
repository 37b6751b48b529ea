"""Broadcast functions for process workers, which import them by name."""

from __future__ import annotations

import os

from prpc.call_context import current_call


def note_in_process(folder: str, what: str) -> None:
    """Leave a file that tells of this run: which process, which call."""
    call = current_call()
    with open(os.path.join(folder, f"{os.getpid()} {call.message_id} {call.headers.get('by')} {what}"), "x"):
        pass
