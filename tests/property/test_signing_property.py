"""Whatever is changed in whatever a signature covers, it is refused; what is not changed is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prpc.codec.signing import CONTROL, REPLY, Signatures
from prpc.exceptions import DecodeError

KEY = "a-key-of-the-tests-" + "k" * 20
NOW = 1_700_000_000.0
SIGNATURES = Signatures(KEY, "q")

names = st.text(min_size=1, max_size=12).filter(lambda name: name not in ("signature", "signed_ms", "timeout_ms"))
facts_of = st.dictionaries(names, st.text(max_size=20), max_size=4)
bodies = st.binary(max_size=200)
texts = st.binary(max_size=200).flatmap(lambda inner: st.sampled_from([b"{%b}" % inner, b"[%b]" % inner]))


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def refused(body: bytes, facts: dict[str, str], raw: bool) -> None:
    with pytest.raises(DecodeError):
        SIGNATURES.check_call(body, facts, NOW, raw=raw)


@given(bodies, facts_of, st.booleans(), st.data())
def test_any_changed_bit_of_a_call_is_refused(body: bytes, facts: dict[str, str], raw: bool, data: st.DataObject) -> None:
    signed = SIGNATURES.sign_call(body, facts, NOW, raw=raw)
    SIGNATURES.check_call(body, signed, NOW, raw=raw)
    refused(body, signed, not raw)
    if body:
        refused(flip(body, data.draw(st.integers(0, 8 * len(body) - 1))), signed, raw)
    name = data.draw(st.sampled_from(sorted(signed)))
    value = signed[name].encode("utf-8", "surrogatepass")
    if value:
        changed = flip(value, data.draw(st.integers(0, 8 * len(value) - 1))).decode("utf-8", "surrogateescape")
        refused(body, {**signed, name: changed}, raw)
    refused(body, {n: v for n, v in signed.items() if n != name}, raw)
    renamed = data.draw(names.filter(lambda new: new not in signed))
    refused(body, {renamed if n == name else n: v for n, v in signed.items()}, raw)


@given(bodies, bodies, facts_of, facts_of)
def test_a_signature_fits_one_call_alone(body: bytes, other: bytes, facts: dict[str, str], others: dict[str, str]) -> None:
    signed, foreign = SIGNATURES.sign_call(body, facts, NOW), SIGNATURES.sign_call(other, others, NOW)
    if (body, facts) != (other, others):
        refused(other, {**foreign, "signature": signed["signature"]}, False)


@given(texts, st.data())
def test_any_changed_bit_of_a_text_is_refused(text: bytes, data: st.DataObject) -> None:
    signed = SIGNATURES.sign(REPLY, text)
    assert SIGNATURES.open(REPLY, signed) == text
    with pytest.raises(DecodeError):
        SIGNATURES.open(CONTROL, signed)
    with pytest.raises(DecodeError):
        SIGNATURES.open(REPLY, flip(signed, data.draw(st.integers(0, 8 * len(signed) - 1))))
    with pytest.raises(DecodeError):
        SIGNATURES.open(REPLY, signed[: data.draw(st.integers(0, len(signed) - 1))])


@given(st.binary(max_size=200))
def test_no_text_of_a_stranger_opens(text: bytes) -> None:
    with pytest.raises(DecodeError):
        SIGNATURES.open(REPLY, text)
