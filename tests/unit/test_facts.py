"""What stands beside a message: whatever cannot be meant is refused."""

from __future__ import annotations

import pytest

from prpc.exceptions import DecodeError
from prpc.protocol.facts import CallFacts, reply_address


@pytest.mark.parametrize("address", ["a" * 32, "topic:3", "\u00e4", "a" * 200])
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert CallFacts.from_fields({"reply_to": address}).reply_to == reply_address({"reply_to": address}) == address


@pytest.mark.parametrize("address", ["", " ", "a b", "a\nb", "a\0", "\u2028", "\ud800", "\x1b[2J", "a" * 201, "a" * 5_000_000])
def test_what_no_mailbox_is_called_is_no_address(address: str) -> None:
    """Brokers make channels and lists of it: with a line break in it, one address would be several."""
    assert reply_address({"reply_to": address}) is None
    with pytest.raises(DecodeError, match="reply_to") as caught:
        CallFacts.from_fields({"reply_to": address})
    assert caught.value.reason == "form" and len(str(caught.value)) < 300


def test_no_address_is_none() -> None:
    assert reply_address({}) is None
    assert CallFacts.from_fields({"schema": "x"}).reply_to is None


@pytest.mark.parametrize("name", ["timeout_ms", "attempt"])
@pytest.mark.parametrize("text", ["", "-1", "1.5", "+1", " 1", "1e3", "\u0665", "9" * 16])
def test_numbers_are_digits(name: str, text: str) -> None:
    with pytest.raises(DecodeError, match=name):
        CallFacts.from_fields({name: text})


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '{"a": 1}', "{" * 5000, '{"a": "' + "x" * 17_000 + '"}', '{"a": ' + "9" * 5000 + "}"]
)
def test_headers_are_an_object_of_texts(text: str) -> None:
    with pytest.raises(DecodeError, match="headers"):
        CallFacts.from_fields({"headers": text})


def test_facts_come_back() -> None:
    facts = CallFacts("here", 1.5, "hash", {"a": "\u2603"}, 3)
    assert CallFacts.from_fields(facts.to_fields()) == facts
