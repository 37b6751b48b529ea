"""Which run of a stream a reader's word is about."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from prpc.codec import Codec
from prpc.protocol.streams import LEFT, Word, write_words
from prpc.streaming.desk import Desk
from prpc.streaming.ends import Key, Writer

ID = uuid.uuid4()


@pytest.mark.parametrize(
    ("word", "told", "sent"),
    [
        (Word(ID, "", 1, LEFT, 0, 0), [], b"[1,1,1]"),  # about an earlier run of this server, which ended: this one goes on
        (Word(ID, "", 2, LEFT, 0, 0), [True], b""),
        (Word(ID, "", 1, LEFT, 0, LEFT), [False], b""),  # the reader has gone, whatever it read
        (Word(ID, "", 2, LEFT, 0, LEFT), [False], b""),
        (Word(ID, "", 1, 1, 5, 1), [], b"[1,1]"),
    ],
)
def test_only_the_run_that_is_not_read_is_told_so(word: Word, told: list[bool], sent: bytes) -> None:
    async def scenario() -> None:
        left: list[bool] = []
        posted: list[bytes] = []
        desk = Desk(
            asyncio.get_running_loop(),
            Codec(),
            address=lambda: "writer",
            post=lambda _, body, __: posted.append(body),
            heard=lambda _: None,
            news=lambda _: None,
            left=lambda _, elsewhere: left.append(elsewhere),
        )
        key: Key = (ID, "")
        writer = desk.writers[key] = Writer(desk, key, 2, "reader", 1, "item")
        for _ in range(3):
            writer.put(desk.encode(1, "item"))
        desk.receive(write_words("reader", [word]))
        assert left == told
        await asyncio.sleep(0)
        assert not sent or b"".join(posted).endswith(b'"items": ' + sent + b"}")

    asyncio.run(scenario())
