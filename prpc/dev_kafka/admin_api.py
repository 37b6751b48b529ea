"""Topics, their partitions, records and settings: the answers, as tuples in the order of aiokafka's structs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prpc.dev_kafka.codes import Code, Refused
from prpc.dev_kafka.store import NODE_ID, Caller, Store
from prpc.dev_kafka.topics import DEFAULTS, check_configs

__all__ = ["alter_configs", "create_partitions", "create_topics", "delete_records", "delete_topics", "describe_configs"]

#: Kinds of resources and sources of settings, as DescribeConfigs numbers them.
TOPIC, BROKER = 2, 4
GIVEN, STATIC_BROKER, DEFAULT = 1, 4, 5


def _outcome(work: Callable[..., object], *arguments: Any, **more: Any) -> tuple[Code, str | None]:
    try:
        work(*arguments, **more)
    except Refused as refused:
        return refused.code, refused.text
    return Code.NONE, None


async def create_topics(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    create, dry = store.topics.create, request.validate_only
    rows = []
    for name, partitions, replication, assignment, configs in request.create_topic_requests:
        rest = (partitions, replication, dict(configs))
        rows.append((name, *_outcome(create, name, *rest, assignment=assignment, validate_only=dry)))
    return 0, rows


async def delete_topics(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    return 0, [(name, _outcome(store.delete_topic, name)[0]) for name in request.topics]


async def create_partitions(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    grow, dry = store.topics.grow, request.validate_only
    return 0, [(name, *_outcome(grow, name, count, validate_only=dry)) for name, (count, _) in request.topic_partitions]


async def delete_records(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    topics: list[Any] = []
    for name, partitions, _tags in request.topics:
        rows: list[tuple[Any, ...]] = []
        for index, offset, _ in partitions:
            try:
                rows.append((index, store.topics.partition(name, index).delete_before(offset), Code.NONE, {}))
            except Refused as refused:
                rows.append((index, -1, refused.code, {}))
        topics.append((name, rows, {}))
    return 0, topics, {}


async def describe_configs(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """Given settings and defaults; no names are all names."""
    rows: list[Any] = []
    for kind, name, wanted in request.resources:
        try:
            entries = _described(store, kind, name)
        except Refused as refused:
            rows.append((refused.code, refused.text, kind, name, []))
            continue
        chosen = [(key, *entry) for key, entry in entries.items() if wanted is None or key in wanted]
        described = []
        for key, value, source in chosen:
            synonyms = [(key, value, source)] if request.include_synonyms else []
            described.append((key, value, False, source, False, synonyms))
        rows.append((Code.NONE, "", kind, name, described))
    return 0, rows


def _described(store: Store, kind: int, name: str) -> dict[str, tuple[str, int]]:
    """Setting -> value and where it comes from."""
    if kind == TOPIC:
        given = store.topics.topic(name).configs
        return {key: (given.get(key, default), GIVEN if key in given else DEFAULT) for key, default in DEFAULTS.items()}
    if kind == BROKER and name in ("", str(NODE_ID)):
        options = store.options
        return {
            "auto.create.topics.enable": (str(options.auto_create).lower(), STATIC_BROKER),
            "group.max.session.timeout.ms": (str(round(options.max_session * 1000)), STATIC_BROKER),
            "group.min.session.timeout.ms": (str(round(options.min_session * 1000)), STATIC_BROKER),
            "message.max.bytes": (DEFAULTS["max.message.bytes"], DEFAULT),
            "num.partitions": (str(options.default_partitions), STATIC_BROKER),
            "offset.metadata.max.bytes": (str(options.max_offset_metadata), DEFAULT),
        }
    raise Refused(Code.INVALID_REQUEST, f"Unexpected broker id, expected {NODE_ID} or empty string, but received {name}")


async def alter_configs(store: Store, request: Any, caller: Caller) -> tuple[Any, ...]:
    """The settings given replace all that were given before."""
    rows = []
    for kind, name, entries in request.resources:
        code, text = _outcome(_alter, store, kind, name, dict(entries), dry=request.validate_only)
        rows.append((code, text, kind, name))
    return 0, rows


def _alter(store: Store, kind: int, name: str, configs: dict[str, str], *, dry: bool) -> None:
    if kind != TOPIC:
        raise Refused(Code.INVALID_REQUEST, "this broker's own settings are those of its options")
    topic = store.topics.topic(name)
    check_configs(configs)
    if not dry:
        topic.configs = configs
