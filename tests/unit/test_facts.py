"""What stands beside a message: whatever cannot be meant is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import UUID

import pytest

from prpc.exceptions import DecodeError, EncodeError
from prpc.protocol.facts import (
    CallFacts,
    Control,
    Event,
    read_cancel,
    read_control,
    reply_address,
    write_cancel,
    write_event,
)


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


ID = UUID("8dcd1fcc-737c-44c5-b079-9b8ffce37566")
EVENT = Event(b'{"a": "\\u2603 \xe2\x98\x83 \xed\xa0\x80"}', 1_800_000_000.25, CallFacts(timeout=1.5, headers={"a": "\u2603"}))


@pytest.mark.parametrize("event", [EVENT, replace(EVENT, raw=True), replace(EVENT, strict=False), Event(b"", 0.0)])
def test_an_event_comes_back(event: Event) -> None:
    assert read_control(write_event(event)) == Control([], event)
    assert read_cancel(write_event(event)) == []


def test_one_message_may_cancel_and_tell() -> None:
    both = {**json.loads(write_event(EVENT)), **json.loads(write_cancel([ID]))}
    assert read_control(json.dumps(both).encode()) == Control([ID], EVENT)


def test_what_is_new_in_an_event_is_left_alone() -> None:
    message = json.loads(write_event(EVENT))
    message["event"] |= {"new": "x", "reply_to": "\n", "attempt": "x"}
    assert read_control(json.dumps(message).encode()).event == EVENT


@pytest.mark.parametrize(
    "change",
    [
        {"message": None},
        {"message": 5},
        {"message": {}},
        {"sent_ms": None},
        {"sent_ms": 5},
        {"sent_ms": ""},
        {"sent_ms": "-1"},
        {"sent_ms": "1.5"},
        {"sent_ms": "9" * 16},
        {"timeout_ms": "x"},
        {"timeout_ms": 5},
        {"headers": {}},
        {"headers": "[]"},
        {"headers": "{" * 5000},
        {"raw": True},
        {"new": 5},
    ],
)
def test_what_is_no_event_is_refused(change: dict[str, object]) -> None:
    message = json.loads(write_event(EVENT))
    message["event"] |= change
    with pytest.raises(DecodeError) as caught:
        read_control(json.dumps(message).encode())
    assert caught.value.reason in ("form", "json")


@pytest.mark.parametrize("name", ["message", "sent_ms"])
def test_an_event_without_its_parts_is_refused(name: str) -> None:
    message = json.loads(write_event(EVENT))
    del message["event"][name]
    with pytest.raises(DecodeError):
        read_control(json.dumps(message).encode())


@pytest.mark.parametrize("event", ["[]", "5", '"x"', "{}", "true", "[" * 100_000])
def test_events_of_other_kinds_are_refused(event: str) -> None:
    with pytest.raises(DecodeError):
        read_control(f'{{"event": {event}}}'.encode())


@pytest.mark.parametrize("body", [b"[]", b"{}", b"5", b'{"new": 1}', b'{"event": null, "cancel": []}'])
def test_what_is_new_on_the_control_channel_says_nothing(body: bytes) -> None:
    assert read_control(body) == Control()


def test_an_event_has_a_largest_size() -> None:
    write_event(Event(b"x" * 999_000, 0.0))
    with pytest.raises(EncodeError, match="1200"):
        write_event(Event(b"x" * 1_200_000, 0.0))
    with pytest.raises(EncodeError):  # it counts as it is sent
        write_event(Event(b'"' * 600_000, 0.0))
    body = json.dumps({"event": {"message": "x" * 1_200_000, "sent_ms": "0"}}).encode()
    with pytest.raises(DecodeError) as caught:
        read_control(body)
    assert caught.value.reason == "size"
