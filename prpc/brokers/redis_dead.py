"""Dead letters on Redis: a stream of a queue's own.

A letter's first fields are ours, in the order of `HEADER`; the entry's follow in theirs, whatever they are called. `rest` holds
those that a script cannot put into one command, each name and value behind its length and a colon.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from prpc.brokers.base import DeadLetter
from prpc.brokers.redis_batch import milliseconds, unframe
from prpc.brokers.redis_link import Link
from prpc.brokers.redis_scripts import ADD_OWN, Script
from prpc.exceptions import EncodeError
from prpc.names import QueueNames

__all__ = ["REQUEUE", "RedisDeadLetters"]

HEADER = ("reason", "details", "stream", "entry", "attempts", "sent_ms", "rest")
#: Letters that are read in one command.
PAGE = 10
#: Answers of REQUEUE.
MISSING, TOO_LARGE = 0, -1

_ID = re.compile(r"\d{1,20}-\d{1,20}")

#: KEYS dead letters, calls, raw calls; ARGV id, then the names of the header. Adds, then deletes: nothing is lost in between.
REQUEUE = Script(
    ADD_OWN
    + """
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then return 0 end
local fields, header, at = letter[2], {}, 1
for i = 2, #ARGV do
  if fields[at] == ARGV[i] then
    header[ARGV[i]] = fields[at + 1]
    at = at + 2
  end
end
local entry = {}
for i = at, #fields, 2 do
  if fields[i] ~= 'own' then
    entry[#entry + 1] = fields[i]
    entry[#entry + 1] = fields[i + 1]
  end
end
if #entry == 0 or #entry > 6000 or (header['rest'] or '') ~= '' then return -1 end
add_own(header['stream'] == KEYS[3] and KEYS[3] or KEYS[2], unpack(entry))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
"""
)


class RedisDeadLetters:
    """See prpc.brokers.base.DeadLetters."""

    def __init__(self, link: Link, names: QueueNames, patience: float) -> None:
        self._link, self._names, self._patience = link, names, patience

    async def count(self) -> int:
        """See DeadLetters."""
        return int(await self._link.call("XLEN", self._names.dead, patience=self._patience))

    async def read(self) -> AsyncIterator[DeadLetter]:
        """See DeadLetters."""
        start = "-"
        while True:
            page = await self._range(start, "+")
            for letter in page:
                yield letter
            if len(page) < PAGE:
                return
            start = f"({page[-1].id}"

    async def get(self, letter_id: str) -> DeadLetter | None:
        """See DeadLetters."""
        if not _is_id(letter_id):
            return None
        return next(iter(await self._range(letter_id, letter_id)), None)

    async def _range(self, first: str, last: str) -> Sequence[DeadLetter]:
        entries = await self._link.call("XRANGE", self._names.dead, first, last, "COUNT", PAGE, patience=self._patience)
        return [self._letter(id_, fields) for id_, fields in entries]

    def _letter(self, id_: bytes, words: Sequence[bytes]) -> DeadLetter:
        fields = list(zip(words[::2], words[1::2], strict=True))
        header: dict[str, bytes] = {}
        for name in HEADER:
            if fields and fields[0][0] == name.encode():
                header[name] = fields.pop(0)[1]
        rest = unframe(header.get("rest", b""))
        fields += zip(rest[::2], rest[1::2], strict=False)
        texts = {name: value.decode(errors="replace") for name, value in header.items()}
        return DeadLetter(
            id=id_.decode(),
            reason=texts.get("reason", ""),
            details=texts.get("details", ""),
            raw=texts.get("stream") == self._names.raw_calls,
            entry=texts.get("entry", ""),
            attempts=_number(texts.get("attempts", "")),
            sent=_number(texts.get("sent_ms", "")) / 1000,
            buried=milliseconds(id_) / 1000,
            fields=fields,
        )

    async def requeue(self, letter_id: str) -> bool:
        """See DeadLetters."""
        if not _is_id(letter_id):
            return False
        keys = (self._names.dead, self._names.calls, self._names.raw_calls)
        answer = await self._link.run(REQUEUE, keys, (letter_id, *HEADER), patience=self._patience)
        if answer == TOO_LARGE:
            raise EncodeError(f"dead letter {letter_id} cannot be put back: it has no fields, or more than 3,000")
        return bool(answer != MISSING)

    async def drop(self, letter_id: str) -> bool:
        """See DeadLetters."""
        return _is_id(letter_id) and bool(await self._link.call("XDEL", self._names.dead, letter_id, patience=self._patience))


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None and all(int(part) < 2**64 for part in text.split("-"))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
