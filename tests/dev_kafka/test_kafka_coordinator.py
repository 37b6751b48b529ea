"""The coordinator's answers, code by code, to members that say only what the test wants."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest

from prpc.dev_kafka import Code
from tests.kafka_talk import Kafka, Member, ask, connection, member, new_topic, run, until


@pytest.fixture
def group() -> str:
    """A group that no other test has."""
    return f"group-{uuid.uuid4().hex}"


async def settle(*members: Member) -> None:
    """All join and sync; every member's assignment is its own id."""
    assert set(await asyncio.gather(*(one.join() for one in members))) == {Code.NONE}
    await share(*members)


async def share(*members: Member) -> None:
    given = {one.id: one.id.encode() for one in members}
    answers = await asyncio.gather(*(one.sync(given if one.leads else None) for one in members))
    assert answers == [(Code.NONE, one.id.encode()) for one in members]


async def two(first: Member, second: Member) -> None:
    """A settled group of two."""
    await settle(first)
    joining = asyncio.ensure_future(second.join())
    await told_to_join(first)
    assert await first.join() == await joining == Code.NONE
    await share(first, second)


async def told_to_join(one: Member) -> None:
    async def rebalancing() -> bool:
        return await one.heartbeat() == Code.REBALANCE_IN_PROGRESS

    await until(rebalancing)


def test_a_first_join_gets_an_id(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group) as one:
            await settle(one)
            assert one.leads and one.generation == 1 and one.known == {one.id}
            assert await one.heartbeat() == Code.NONE
            assert await one.sync() == (Code.NONE, one.id.encode())
            assert await one.leave() == Code.NONE
            assert await one.leave() == await one.heartbeat() == Code.UNKNOWN_MEMBER_ID
            assert await one.join() == Code.UNKNOWN_MEMBER_ID

    run(scenario())


@pytest.mark.parametrize(
    ("name", "session", "kind", "protocols", "code"),
    [
        ("", 10_000, "test", {"p": b""}, Code.INVALID_GROUP_ID),
        ("group", 10, "test", {"p": b""}, Code.INVALID_SESSION_TIMEOUT),
        ("group", 10_000_000, "test", {"p": b""}, Code.INVALID_SESSION_TIMEOUT),
        ("group", 10_000, "test", {"other": b""}, Code.INCONSISTENT_GROUP_PROTOCOL),
        ("group", 10_000, "another", {"p": b""}, Code.INCONSISTENT_GROUP_PROTOCOL),
    ],
)
def test_a_join_is_refused(
    kafka: Kafka, group: str, name: str, session: int, kind: str, protocols: dict[str, bytes], code: Code
) -> None:
    async def scenario() -> None:
        async with member(kafka, group) as one, member(kafka, group if name else "", session=session) as two:
            await settle(one)
            assert await two.join(protocols, kind) == code
            assert await one.heartbeat() == Code.NONE

    run(scenario())


def test_a_stranger_gets_nothing(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        async with member(kafka, group) as one, member(kafka, group) as stranger:
            stranger.id, stranger.generation = "nobody", 1
            # There is no such group yet ...
            assert await stranger.heartbeat() == await stranger.leave() == Code.UNKNOWN_MEMBER_ID
            assert (await stranger.sync())[0] == Code.UNKNOWN_MEMBER_ID
            assert await stranger.commit(topic, 1) == Code.ILLEGAL_GENERATION
            # ... and then it is not in it.
            await settle(one)
            assert await stranger.heartbeat() == await stranger.leave() == Code.UNKNOWN_MEMBER_ID
            assert (await stranger.sync())[0] == await stranger.join() == Code.UNKNOWN_MEMBER_ID
            assert await stranger.commit(topic, 1) == Code.UNKNOWN_MEMBER_ID
            stranger.id = ""
            assert await stranger.commit(topic, 1, generation=-1) == Code.UNKNOWN_MEMBER_ID

    run(scenario())


def test_an_old_generation_counts_no_more(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        async with member(kafka, group) as first, member(kafka, group) as second:
            await two(first, second)
            old = first.generation - 1
            assert await first.heartbeat(old) == await first.commit(topic, 1, generation=old) == Code.ILLEGAL_GENERATION
            first.generation = old
            assert (await first.sync())[0] == Code.ILLEGAL_GENERATION

    run(scenario())


def test_the_steps_of_a_rebalance(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        async with member(kafka, group) as first, member(kafka, group) as second:
            await settle(first)
            joining = asyncio.ensure_future(second.join())
            await told_to_join(first)
            # The old generation may finish its commits until it joins again.
            assert await first.commit(topic, 5) == Code.NONE
            assert (await first.sync())[0] == Code.REBALANCE_IN_PROGRESS
            assert await first.join() == await joining == Code.NONE
            assert (first.generation, second.generation) == (2, 2)
            assert first.leads and not second.leads
            assert (first.known, second.known) == ({first.id, second.id}, set())
            # The new one may not commit until it knows what it owns.
            assert await first.commit(topic, 6) == Code.REBALANCE_IN_PROGRESS
            assert await first.heartbeat() == await second.heartbeat() == Code.NONE
            await share(first, second)
            assert await second.commit(topic, 7) == Code.NONE

    run(scenario())


def test_who_joins_again_with_nothing_new(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group) as first, member(kafka, group) as second:
            await two(first, second)
            # A follower: no reason for a new generation.
            assert await second.join() == Code.NONE
            assert second.generation == 2
            assert await second.sync() == (Code.NONE, second.id.encode())
            # The leader: its way to ask for one.
            joining = asyncio.ensure_future(first.join())
            await told_to_join(second)
            assert await second.join() == await joining == Code.NONE
            assert first.generation == second.generation == 3
            # Whose answer got lost before the assignment was there.
            assert await first.join() == Code.NONE
            assert first.generation == 3 and first.known == {first.id, second.id}
            await share(first, second)
            # A follower with something new.
            joining = asyncio.ensure_future(second.join({"p": b"new"}))
            await told_to_join(first)
            assert await first.join() == await joining == Code.NONE
            assert first.generation == 4

    run(scenario())


def test_an_id_that_is_not_used_holds_a_rebalance_up(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group) as first, member(kafka, group) as second:
            await settle(first)
            unused = await ask(kafka, JoinGroupRequest(group, 700, 10_000, "", None, "test", [("p", b"m")]))
            assert unused.error_code == Code.MEMBER_ID_REQUIRED
            joining = asyncio.ensure_future(second.join())
            await told_to_join(first)
            # Both have joined when the id runs out.
            assert await first.join() == await joining == Code.NONE
            assert first.known == {first.id, second.id}
            again = await ask(kafka, JoinGroupRequest(group, 700, 10_000, "", None, "test", [("p", b"m")]))
            assert await ask_to_leave(kafka, group, again.member_id) == Code.NONE
            assert await ask_to_leave(kafka, group, again.member_id) == Code.UNKNOWN_MEMBER_ID

    run(scenario())


async def ask_to_leave(kafka: Kafka, group: str, member_id: str) -> int:
    return int((await ask(kafka, LeaveGroupRequest(group, member_id))).error_code)


def test_a_rebalance_does_not_wait_for_ever(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group, rebalance=400) as late, member(kafka, group, rebalance=400) as second:
            await settle(late)
            assert await second.join() == Code.NONE
            assert second.leads and second.known == {second.id}
            assert await late.heartbeat() == Code.UNKNOWN_MEMBER_ID

    run(scenario())


def test_a_silent_member_is_out_when_its_session_is_over(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group, session=1_200) as silent, member(kafka, group) as second:
            await two(silent, second)
            await told_to_join(second)
            assert await second.join() == Code.NONE
            assert second.known == {second.id}
            assert await silent.heartbeat() == Code.UNKNOWN_MEMBER_ID

    run(scenario())


def test_a_session_may_get_shorter(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group) as one, member(kafka, group) as second:
            await settle(one)
            one.times = (500, 10_000)
            assert await one.join() == Code.NONE
            # It never takes its assignment: the newcomer has to wait no longer than its session.
            assert await second.join() == Code.NONE
            assert second.known == {second.id}

    run(scenario())


def test_commits_and_heartbeats_keep_a_session(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        async with member(kafka, group, session=1_500) as one:
            await settle(one)
            ends = asyncio.get_running_loop().time() + 2.2
            while asyncio.get_running_loop().time() < ends:
                assert await one.commit(topic, 1) == Code.NONE
                await asyncio.sleep(0.05)

    run(scenario())


def test_who_does_not_take_its_assignment_is_out(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group, rebalance=1_500) as first, member(kafka, group, rebalance=1_500) as second:
            await settle(first)
            joining = asyncio.ensure_future(second.join())
            await told_to_join(first)
            assert await first.join() == await joining == Code.NONE
            assert (await first.sync({first.id: b"all"})) == (Code.NONE, b"all")
            await told_to_join(first)
            assert await second.heartbeat() == Code.UNKNOWN_MEMBER_ID

    run(scenario())


def test_a_newcomer_breaks_into_the_assignment(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group) as first, member(kafka, group) as second, member(kafka, group) as third:
            await settle(first)
            joining = asyncio.ensure_future(second.join())
            await told_to_join(first)
            assert await first.join() == await joining == Code.NONE
            waiting = asyncio.ensure_future(second.sync())
            newcomer = asyncio.ensure_future(third.join())
            assert (await waiting)[0] == Code.REBALANCE_IN_PROGRESS
            again = await asyncio.gather(first.join(), second.join(), newcomer)
            assert set(again) == {Code.NONE}
            await share(first, second, third)

    run(scenario())


def test_a_leader_that_leaves_is_followed(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        async with member(kafka, group) as first, member(kafka, group) as second:
            await two(first, second)
            assert await first.leave() == Code.NONE
            await told_to_join(second)
            await settle(second)
            assert second.leads

    run(scenario())


def test_an_offset_needs_a_partition_that_exists(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        topic = await new_topic(kafka)
        async with member(kafka, group) as one:
            await settle(one)
            assert await one.commit("no-such-topic", 1) == Code.UNKNOWN_TOPIC_OR_PARTITION
            assert await one.commit(topic, 1, partition=9) == Code.UNKNOWN_TOPIC_OR_PARTITION
            assert await one.commit(topic, 1, "x" * 4097) == Code.OFFSET_METADATA_TOO_LARGE

    run(scenario())


def test_every_group_has_a_coordinator(kafka: Kafka, group: str) -> None:
    async def scenario() -> None:
        answer = await ask(kafka, FindCoordinatorRequest(group, 0))
        assert answer.error_code == Code.NONE
        async with connection(kafka) as opened:
            assert (answer.host, answer.port) == (opened.host, opened.port)

    run(scenario())
