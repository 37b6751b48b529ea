"""Bytes to messages and back. No I/O; nothing a text names is ever imported or called."""

from __future__ import annotations

from prpc.codec.codec import Codec, ReadReply, WrittenReply
from prpc.codec.limits import Limits

__all__ = ["Codec", "Limits", "ReadReply", "WrittenReply"]
