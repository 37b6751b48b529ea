"""Signatures: what they cover, which keys count, and that nothing shows a key."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import jsonpickle
import pytest

from prpc.app_client import Client
from prpc.app_server import AppServer
from prpc.codec import Codec
from prpc.codec.signing import CONTROL, MAIL, REPLY, Signatures, signatures_of
from prpc.exceptions import ConfigurationError, DecodeError
from prpc.prpcmessage import PRPCMessage
from prpc.settings import Settings

KEY, OTHER = "first-key-" + "a" * 30, "other-key-" + "b" * 30
BODY = b'{"func_name": "pay", "message_id": "6f1c0c1e-8d7a-4d3c-9a53-0f6f2f8e2b11"}'
FACTS = {"reply_to": "me", "timeout_ms": "60000", "headers": '{"user": "Zoë"}'}
NOW = 1_700_000_000.25


def reason(signatures: Signatures, body: bytes, facts: dict[str, str], entered: float = NOW, *, raw: bool = False) -> str:
    """Why the call is refused."""
    with pytest.raises(DecodeError) as caught:
        signatures.check_call(body, facts, entered, raw=raw)
    assert caught.value.reason == "signature"
    return str(caught.value)


def test_a_signed_call_is_accepted() -> None:
    signatures = Signatures(KEY, "q")
    signed = signatures.sign_call(BODY, FACTS, NOW)
    assert signed.items() > FACTS.items()
    assert signed.keys() - FACTS.keys() == {"signature", "signed_ms"}
    assert signed["signed_ms"] == "1700000000250"
    signatures.check_call(BODY, signed, NOW)
    assert signatures.sign_call(BODY, FACTS, NOW) == signed


def test_the_form_is_what_another_language_computes() -> None:
    facts = Signatures(KEY, "q").sign_call(BODY, FACTS, NOW, raw=True)
    parts = ["prpc 1", "raw call", "q", BODY.decode()]
    for name in sorted(facts.keys() - {"signature"}):
        parts += [name, facts[name]]
    text = b"".join(b"%d:%s," % (len(part.encode()), part.encode()) for part in parts)
    assert facts["signature"] == hmac.new(KEY.encode(), text, hashlib.sha256).hexdigest()
    command = ["openssl", "dgst", "-sha256", "-hmac", KEY]
    printed = subprocess.run(command, input=text, capture_output=True, check=True).stdout.decode()
    assert printed.split()[-1] == facts["signature"]


def test_no_key_signs_nothing() -> None:
    assert signatures_of("", "q") is None
    assert signatures_of(KEY, "q") is not None


def test_the_first_key_signs_and_any_may_have_signed() -> None:
    old, new = Signatures(OTHER, "q"), Signatures(KEY, "q")
    both, turned = Signatures(f"{KEY}, {OTHER}", "q"), Signatures(f"{OTHER},{KEY}", "q")
    for signer in (old, new, both, turned):
        for reader in (both, turned):
            reader.check_call(BODY, signer.sign_call(BODY, FACTS, NOW), NOW)
            assert reader.open(REPLY, signer.sign(REPLY, b"[1]")) == b"[1]"
    assert both.sign_call(BODY, FACTS, NOW) == new.sign_call(BODY, FACTS, NOW)
    assert turned.sign_call(BODY, FACTS, NOW) == old.sign_call(BODY, FACTS, NOW)
    assert reason(old, BODY, new.sign_call(BODY, FACTS, NOW)) == "the call has a wrong signature"


@pytest.mark.parametrize("change", ["queue", "kind", "body", "added", "left out", "changed", "moved between facts", "signed_ms"])
def test_whatever_steers_is_covered(change: str) -> None:
    signatures = Signatures(KEY, "q")
    facts, body, raw = signatures.sign_call(BODY, FACTS, NOW), BODY, False
    match change:
        case "queue":
            signatures = Signatures(KEY, "q2")
        case "kind":
            raw = True
        case "body":
            body += b" "
        case "added":
            facts["idempotent"] = "1"
        case "left out":
            del facts["timeout_ms"]
        case "changed":
            facts["reply_to"] = "him"
        case "moved between facts":
            facts["reply_to"], facts["timeout_ms"] = facts["timeout_ms"], facts["reply_to"]
        case "signed_ms":
            facts["signed_ms"] = "1700000000251"
    assert reason(signatures, body, facts, raw=raw) == "the call has a wrong signature"


def test_an_unsigned_call_is_refused_with_its_id() -> None:
    signatures = Signatures(KEY, "q")
    with pytest.raises(DecodeError) as caught:
        signatures.check_call(BODY, FACTS, NOW)
    assert caught.value.message_id == "6f1c0c1e-8d7a-4d3c-9a53-0f6f2f8e2b11"
    assert str(caught.value) == "the call is not signed"
    assert reason(signatures, BODY, {**FACTS, "signature": ""}) == "the call has a wrong signature"
    assert reason(signatures, BODY, {**FACTS, "signature": "\udcffé"}) == "the call has a wrong signature"


@pytest.mark.parametrize(
    ("timeout_ms", "delay", "accepted"),
    [
        (None, 299, True),
        (None, 301, False),
        (None, -299, True),
        (None, -301, False),
        ("60000", 59, True),
        ("60000", 61, False),
        ("10", 4, True),
        ("10", 6, False),
        ("999999999", 299, True),
        ("999999999", 301, False),
    ],
)
def test_a_call_enters_the_queue_soon_after_it_was_signed(timeout_ms: str | None, delay: float, accepted: bool) -> None:
    signatures = Signatures(KEY, "q")
    facts = signatures.sign_call(BODY, {} if timeout_ms is None else {"timeout_ms": timeout_ms}, NOW)
    if accepted:
        signatures.check_call(BODY, facts, NOW + delay)
    else:
        way = "before" if delay > 0 else "after"
        assert reason(signatures, BODY, facts, NOW + delay) == f"the call was signed {abs(delay)} s {way} it came into the queue"


@pytest.mark.parametrize("text", ["", "soon", "-1", "9" * 16, "²"])
def test_a_signed_call_says_when_it_was_signed(text: str) -> None:
    signatures = Signatures(KEY, "q")
    facts = {"signed_ms": text}
    facts["signature"] = signatures._sign(signatures._call_text(BODY, facts, False)).decode()
    assert reason(signatures, BODY, facts) == "the call does not say when it was signed"


class TestTexts:
    @pytest.mark.parametrize("text", [b'{"cancel": []}', b'["id",1,null,"date"]'])
    def test_a_text_opens_to_what_was_signed(self, text: bytes) -> None:
        signatures = Signatures(KEY, "q")
        signed = signatures.sign(REPLY, text)
        assert signatures.open(REPLY, signed) == text
        assert len(json.loads(signed)) == len(json.loads(text)) + 1

    def test_a_key_less_reader_reads_on(self) -> None:
        codec, signatures = Codec(), Signatures(KEY, "q")
        message = PRPCMessage("f", (), {}, uuid4(), datetime.now(UTC)).done(datetime.now(UTC), {"a": 1})
        for for_us in (False, True):
            signed = signatures.sign(REPLY, codec.write_reply(message, None, for_us=for_us).body)
            assert codec.read_reply(signed).result == {"a": 1}
            restored: Any = jsonpickle.decode(signed.decode(), keys=True)
            assert restored.result == {"a": 1}
        raw = signatures.sign(REPLY, codec.write_raw_reply(message))
        assert json.loads(raw)["result"] == {"a": 1}

    @pytest.mark.parametrize("text", [b"", b"}", b"[]", b'["x"]', b"no json", b'{"signature": "' + b"0" * 64 + b'"}', b"]" * 100])
    def test_what_is_not_signed_is_refused(self, text: bytes) -> None:
        with pytest.raises(DecodeError, match="not signed"):
            Signatures(KEY, "q").open(REPLY, text)

    def test_another_kind_queue_or_key_is_refused(self) -> None:
        signed = Signatures(KEY, "q").sign(REPLY, b"[1]")
        for signatures, kind in (
            (Signatures(KEY, "q"), CONTROL),
            (Signatures(KEY, "q"), MAIL),
            (Signatures(KEY, "q2"), REPLY),
            (Signatures(OTHER, "q"), REPLY),
        ):
            with pytest.raises(DecodeError, match="wrong") as caught:
                signatures.open(kind, signed)
            assert caught.value.reason == "signature"


class TestKeys:
    @pytest.mark.parametrize("value", ["short", "k" * 31, f"{KEY},", f"{KEY},short", f",{KEY}", f"{' ' * 40}"])
    def test_a_key_that_is_too_short_is_refused_and_not_shown(self, value: str) -> None:
        with pytest.raises(ConfigurationError, match=r"PRPC_SECRET_KEY cannot be used.*at least 32 characters") as caught:
            Settings.from_env({"PRPC_SECRET_KEY": value})
        assert caught.value.variable == "PRPC_SECRET_KEY"
        shown = f"{caught.value} {caught.value.value} {caught.value!r}"
        assert value.strip() not in shown or not value.strip()
        assert KEY not in shown
        assert caught.value.__cause__ is None

    def test_nothing_shows_a_key(self) -> None:
        settings = Settings.from_env({"PRPC_SECRET_KEY": KEY}, type_broker="memory")
        app = AppServer("memory", secret_key=KEY)
        with Client("memory", secret_key=KEY) as client:
            shown = [repr(x) for x in (settings, app, app.settings, client, client.channel, Signatures(KEY, "q"))]
        assert settings.secret_key == app.settings.secret_key == KEY
        assert KEY not in "".join(shown)

    def test_any_bytes_of_the_environment_make_a_key(self) -> None:
        key = b"\xff" * 32
        signed = Signatures(key.decode("utf-8", "surrogateescape"), "q").sign_call(BODY, {}, NOW)
        text = b"".join(b"%d:%s," % (len(p), p) for p in (b"prpc 1", b"call", b"q", BODY, b"signed_ms", b"1700000000250"))
        assert signed["signature"] == hmac.new(key, text, hashlib.sha256).hexdigest()
