"""SASL PLAIN (RFC 4616), inside Kafka's SaslHandshake and SaslAuthenticate."""

from __future__ import annotations

import hmac
from typing import Any

from prpc.dev_kafka.codes import Code
from prpc.dev_kafka.store import Caller, Store

__all__ = ["BEFORE_LOGIN", "authenticate", "shake_hands"]

#: What a client may ask before it has logged in.
BEFORE_LOGIN = frozenset({"ApiVersions", "SaslHandshake", "SaslAuthenticate"})
MECHANISM = "PLAIN"


async def shake_hands(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    if not store.options.users:
        return Code.ILLEGAL_SASL_STATE, []
    return (Code.NONE if request.mechanism == MECHANISM else Code.UNSUPPORTED_SASL_MECHANISM), [MECHANISM]


async def authenticate(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """Who it is says the password; a wrong one leaves the connection good for nothing else."""
    parts = bytes(request.sasl_auth_bytes or b"").split(b"\0")
    if len(parts) == 3:
        name = parts[1].decode(errors="replace")
        expected = store.options.users.get(name)
        if expected is not None and hmac.compare_digest(expected.encode(), parts[2]):
            caller.user = name
            return Code.NONE, None, b"", 0
    return Code.SASL_AUTHENTICATION_FAILED, "Authentication failed: Invalid username or password", b"", 0
