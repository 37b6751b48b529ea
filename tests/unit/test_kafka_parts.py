"""What the Kafka adapter decides without a broker: shares, ids, outcomes, and the words of servers."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from prpc.brokers import kafka_commit
from prpc.brokers.base import Reply
from prpc.brokers.kafka_assignor import Member, QueueAssignor, Word, share_out
from prpc.brokers.kafka_commit import Committer
from prpc.brokers.kafka_ids import MOST_OUTCOME_BYTES, MOST_WAITED_FOR, KnownIds, Outcomes, id_of_key
from prpc.brokers.kafka_marks import Marks, Progress
from prpc.brokers.kafka_records import CONTINUES, REQUEUED, read_address, write_address
from prpc.brokers.kafka_tenure import KafkaDelivery, Tenure
from prpc.brokers.kafka_words import Word as Said
from prpc.brokers.kafka_words import read_word, write_word
from prpc.settings import Settings

LOG = TopicPartition("prpc_q", 0)
LEASE = 3.0


def record(offset: int, *headers: tuple[str, bytes], topic: str = "prpc_q") -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(topic, 0, offset, 0, 1, b"", b"", None, 0, 0, tuple(headers))


# starts


class Clock:
    """In the place of the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("answer_after", "started"), [(0.0, True), (2.6, True), (2.8, False), (60.0, False)])
def test_a_commit_that_is_answered_too_late_starts_nothing(
    answer_after: float, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have decided meanwhile: as a member that was silent for a session this server is given up."""
    clock = Clock()
    monkeypatch.setattr(kafka_commit, "time", clock)

    async def commit(offsets: object) -> None:
        clock.now += answer_after

    async def main() -> None:
        tenure = Tenure(LOG, Progress(Marks(0, 0)), KnownIds(60.0), raw=False)
        settings = Settings(redis_recover=LEASE, redis_heartbeat=1.0)
        committer = Committer(lambda: "me", commit, lambda: [tenure], settings)
        endings: Any = None
        delivery = KafkaDelivery(endings, tenure, record(0), {}, 1, 0.0, 0)
        tenure.progress.take(0)
        tenure.progress.start(0, "me.0")
        start = committer.ask(delivery)
        assert await committer.commit()
        assert start.result() is started

    asyncio.run(main())


# shares


@given(st.integers(0, 40), st.integers(1, 9), st.data())
def test_shares_are_even_and_whole_and_stay_where_they_can(partitions: int, count: int, data: st.DataObject) -> None:
    had = data.draw(st.lists(st.sets(st.integers(0, 40)), min_size=count, max_size=count))
    members = {str(n): Member(f"name {n}", id=str(n) if data.draw(st.booleans()) else "", had=had[n]) for n in range(count)}
    shares = share_out(members, partitions)
    assert sorted(number for share in shares.values() for number in share) == list(range(partitions))
    sizes = {len(share) for share in shares.values()}
    assert max(sizes) - min(sizes) <= 1
    assert shares == share_out(members, partitions)
    # Shared out once more, with what each has now, nothing moves.
    again = {key: Member(member.name, id=key, had=shares[key]) for key, member in members.items()}
    assert share_out(again, partitions) == shares


def test_a_member_that_joins_takes_no_more_than_its_share() -> None:
    members = {"a": Member("a", id="a", had=(0, 1, 2)), "b": Member("b", id="b", had=(3, 4, 5)), "c": Member("c")}
    shares = share_out(members, 6)
    assert set(shares["a"]) < {0, 1, 2} and set(shares["b"]) < {3, 4, 5} and len(shares["c"]) == 2


class Cluster(ClusterMetadata):
    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range({"prpc_q": 4, "prpc_raw_q": 2, "prpc_other": 1}[topic]))


def test_members_learn_who_was_there_without_a_break() -> None:
    one, two = QueueAssignor("one"), QueueAssignor("two")
    topics = ["prpc_q", "prpc_raw_q"]
    for members in ({"id-1": one}, {"id-1": one, "id-2": two}, {"id-1": one, "id-3": two}):
        said = {key: each.metadata(topics) for key, each in members.items()}
        for key, share in one.assign(Cluster(), said).items():
            members[key].on_assignment(ConsumerProtocolMemberAssignment.decode(share.encode()))
    assert one.word is not None and two.word is not None
    assert one.word == Word("id-1", 3, frozenset({"one"}))  # the other one came back under another id
    assert two.word == Word("id-3", 3, frozenset({"one"}))


def test_both_topics_of_a_number_go_to_one_member_and_queues_apart() -> None:
    one, two, other = QueueAssignor("one"), QueueAssignor("two"), QueueAssignor("other")
    said = {
        "1": one.metadata(["prpc_q", "prpc_raw_q"]),
        "2": two.metadata(["prpc_raw_q", "prpc_q"]),
        "3": other.metadata(["prpc_other"]),
    }
    shares = {key: dict(share.assignment) for key, share in one.assign(Cluster(), said).items()}
    for key in ("1", "2"):
        assert {n for n in shares[key]["prpc_q"] if n < 2} == set(shares[key]["prpc_raw_q"])
    assert shares["3"] == {"prpc_other": [0]}


@pytest.mark.parametrize(
    "said", [b"", b"{", b"[]", b'{"name": 1}', b'{"name": "x", "id": "1", "round": "x", "had": [1]}', b"\xff"]
)
def test_members_of_other_makes_get_a_share(said: bytes) -> None:
    one = QueueAssignor("one")
    members = {"1": one.metadata(["prpc_q"]), "2": ConsumerProtocolMemberMetadata(0, ["prpc_q"], said)}
    shares = {key: dict(share.assignment)["prpc_q"] for key, share in one.assign(Cluster(), members).items()}
    assert sorted(map(len, shares.values())) == [2, 2]
    one.on_assignment(ConsumerProtocolMemberAssignment(0, [("prpc_q", [0])], said))
    assert one.word is not None and one.word.continuing == frozenset()


# ids


def test_the_first_record_of_an_id_may_run_and_what_continues_it() -> None:
    known, message_id = KnownIds(60), uuid.uuid4()
    assert known.admit(message_id, record(5))
    assert known.admit(message_id, record(5))
    assert not known.admit(message_id, record(6))
    assert not known.admit(message_id, record(5, topic="prpc_raw_q"))
    assert not known.admit(message_id, record(8, (CONTINUES, b"5")))  # what it continues has begun here
    known.release(message_id, record(5))
    assert known.admit(message_id, record(9, (CONTINUES, b"5")))
    assert not known.admit(message_id, record(10, (CONTINUES, b"5")))  # a copy
    assert not known.admit(message_id, record(5))
    assert known.admit(message_id, record(11), again=True)
    assert known.admit(message_id, record(12, (REQUEUED, b"letter")))
    assert not known.admit(message_id, record(13, (REQUEUED, b"letter")))
    assert known.admit(uuid.uuid4(), record(14))


def test_what_a_record_continues_may_not_run_any_more_unless_it_has_begun() -> None:
    known, message_id = KnownIds(60), uuid.uuid4()
    known.see(message_id, record(5))
    assert not known.follow(message_id, record(6))
    assert known.follow(message_id, record(7, (CONTINUES, b"5")))
    assert not known.follow(message_id, record(8, (CONTINUES, b"5")))
    assert not known.admit(message_id, record(5))
    known.release(message_id, record(5))  # it is not the one
    assert known.admit(message_id, record(7, (CONTINUES, b"5")))
    known.see(message_id, record(7, (CONTINUES, b"5")))
    assert not known.follow(message_id, record(9, (CONTINUES, b"7")))
    assert not known.admit(message_id, record(9, (CONTINUES, b"7")))
    known.release(message_id, record(7, (CONTINUES, b"5")))
    assert known.follow(message_id, record(9, (CONTINUES, b"7")))
    assert known.admit(message_id, record(9, (CONTINUES, b"7")))


def test_ids_are_forgotten_after_the_window() -> None:
    known, message_id = KnownIds(0.0), uuid.uuid4()
    assert known.admit(message_id, record(1))
    assert known.admit(message_id, record(2))


def test_keys() -> None:
    message_id = uuid.uuid4()
    assert id_of_key(str(message_id).encode()) == message_id
    for key in (None, b"", b"x" * 36, message_id.bytes, b"\xff" * 36):
        assert id_of_key(key) is None


def test_outcomes_are_kept_up_to_a_bound() -> None:
    outcomes, ids = Outcomes(), [uuid.uuid4() for _ in range(5)]
    for message_id in ids:
        outcomes.keep(Reply(message_id, b"x" * (MOST_OUTCOME_BYTES // 4)))
    assert [outcomes.get(message_id) is not None for message_id in ids] == [False, True, True, True, True]
    outcomes.keep(Reply(ids[4], b"second"))
    kept = outcomes.get(ids[4])
    assert kept is not None and kept.body != b"second"


def test_who_waits_for_an_outcome_is_told_once_and_bounded() -> None:
    outcomes, message_id = Outcomes(), uuid.uuid4()
    for address in ("a", "b", "a", *map(str, range(200))):
        outcomes.wait(message_id, address)
    waiting = outcomes.waiting(message_id)
    assert waiting[:2] == ["a", "b"] and len(waiting) == 100
    assert outcomes.waiting(message_id) == []
    first = uuid.uuid4()
    outcomes.wait(first, "a")
    for _ in range(MOST_WAITED_FOR):
        outcomes.wait(uuid.uuid4(), "a")
    assert outcomes.waiting(first) == []


# words and addresses


def test_words_come_back_as_they_were_said() -> None:
    asking = Said("x", asks=(uuid.uuid4(), "3:client"))
    places = ((LOG, 7), (TopicPartition("prpc_raw_q", 3), 2**60))
    unstarted = ((places[0], "x.1"), (places[0], "x.2"), (places[1], "x.2"))
    for word in (Said("x"), Said("x", places, unstarted, 4, frozenset(places)), Said("x", holds=frozenset()), asking):
        assert read_word(write_word(word)) == word


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        7,
        "x",
        {},
        {"member": "x"},
        {"member": "x", "ended": [[1]], "unstarted": []},
        {"member": "x", "ended": 7},
        {"member": "x", "ended": [], "unstarted": [["prpc_q", 0, 1]]},
        *(
            {"member": "x", "ended": [], "unstarted": [], "asks": asks}
            for asks in (7, [], "", {}, ["no id", "x"], [7, "x"], [str(uuid.UUID(int=7))], [[str(uuid.UUID(int=7)), "x"]])
        ),
    ],
)
def test_what_is_no_word_says_nothing(said: Any) -> None:
    assert read_word(json.dumps(said).encode()) is None


def test_what_is_no_json_says_nothing() -> None:
    for body in (b"", b"\xff", b"[" * 100_000):
        assert read_word(body) is None


def test_addresses() -> None:
    assert read_address(write_address(12, "abc")) == (12, "abc")
    for text in ("", "abc", ":abc", "x:abc", "-1:abc", "1234567:abc", "\u0663:abc"):
        assert read_address(text) is None
