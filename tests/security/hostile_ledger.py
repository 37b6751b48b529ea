"""The account of hostile entries: every one is answered, buried, or ended as the double of another, and nothing else happens."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from hostile_doors import ID, Door
from hostile_entries import Entry

__all__ = ["Account", "Ledger", "LogWatch", "readable_id"]


class LogWatch(logging.Handler):
    """What the log says: the ids of refused entries, the doubles, and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.doubles: Counter[UUID] = Counter()
        self.refused: set[UUID] = set()
        #: What should never be said: errors, whatever they are about.
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("%s: another entry of this call came first"):
            assert isinstance(record.args, tuple)
            self.doubles[record.args[0]] += 1  # type: ignore[index]
        elif str(record.msg).startswith("an entry was refused"):
            named = getattr(record, "message_id", None)
            if named is not None and getattr(record, "reason", None) != "signature":  # those are told nothing
                self.refused.add(UUID(named))
        elif record.levelno >= logging.ERROR:
            self.errors.append(self.format(record))

    def __enter__(self) -> LogWatch:
        logger = logging.getLogger("prpc")
        logger.addHandler(self)
        logger.propagate = False  # thousands of lines that nobody reads
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("prpc")
        logger.removeHandler(self)
        logger.propagate = True


def readable_id(body: bytes | None) -> UUID | None:
    """The id in a text, read without the codec: where Python's own JSON finds it, else what looks like the only one."""
    try:
        tree = json.loads((body or b"").decode("utf-8", "surrogatepass"))
        node = tree["message_id"]
        return UUID(node["hex"] if isinstance(node, dict) else node)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = set(ID.findall(body or b""))
        return UUID(found.pop().decode()) if len(found) == 1 else None


@dataclass
class Account:
    """One sum: `sent` is what the others make together."""

    sent: int = 0
    #: Ran or was refused by the server, and its caller has an outcome.
    answered: int = 0
    #: Dead letters without anybody to answer.
    buried: int = 0
    #: Dead letters whose sender was told.
    buried_and_answered: int = 0
    #: Ended as a further entry of an id that was known.
    doubles: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def sum(self) -> int:
        return self.answered + self.buried + self.buried_and_answered + self.doubles


class Ledger:
    """Books entries, and closes the account of those that have come since the last time."""

    def __init__(self, door: Door, log: LogWatch) -> None:
        self.door, self.log = door, log
        #: Ids of good calls, of entries that ran, and of those that were refused by name.
        self.known: set[UUID] = set()
        self.account = Account()
        self.problems: list[str] = []
        self._open: list[tuple[str, Entry]] = []

    def book(self, names: list[str], entries: list[Entry]) -> None:
        self._open += zip(names, entries, strict=True)
        self.account.sent += len(entries)
        self.account.kinds.update(entry.kind for entry in entries)

    async def close(self) -> None:
        """Everything has ended: say of each entry what became of it."""
        letters = await self.door.letters()
        ids = {name: entry.message_id or readable_id(entry.body) for name, entry in self._open}
        seen = {i for i in ids.values() if i} | self.log.refused
        answered = {raw: await self.door.answered(seen, raw=raw) for raw in (False, True)}
        untold = self.log.refused - answered[False] - answered[True] - self.known
        self.problems += [f"buried, and its sender, whose id the server saw, was not told: {named}" for named in untold]
        groups: dict[UUID, list[Entry]] = {}
        for name, entry in self._open:
            reasons, named = letters.get(name), ids[name]
            if reasons:
                self._buried(entry, reasons.pop(), named, answered[entry.raw])
            elif named is None:
                self._problem("neither buried nor readable", entry)
            else:
                groups.setdefault(named, []).append(entry)
        self.problems += [f"a dead letter ({reasons}) of no entry that was sent" for reasons in letters.values() if reasons]
        for named, entries in groups.items():
            self._ended(named, entries, named in answered[False] | answered[True])
        self.problems += [f"a double that was never sent: {named}" for named in self.log.doubles]
        self.known |= self.log.refused
        self._open.clear()
        self.log.refused.clear()

    def _ended(self, named: UUID, entries: list[Entry], answered: bool) -> None:
        """Entries of one id that are no dead letters: one of them ran, unless the id was known before, the others are doubles."""
        doubles = self.log.doubles.pop(named, 0)
        ran = len(entries) - doubles
        self.account.doubles += doubles
        if ran not in (0, 1) or (ran and named in self.known):
            self._problem(f"{len(entries)} entries of one id, {doubles} of them doubles of another", entries[0])
        elif ran and not answered:
            self._problem("not answered", entries[0])
        else:
            self.account.answered += ran
            self.known.add(named)

    def _buried(self, entry: Entry, reason: str, named: UUID | None, answered: set[UUID]) -> None:
        self.account.reasons[reason] += 1
        if reason == "internal error":
            self._problem("met a fault of the server's own", entry)
        told = named in answered
        if entry.message_id is not None and not told and reason != "signature":
            self._problem(f"buried ({reason}), and its sender, whose id is plain to see, was not told", entry)
        if told:
            self.account.buried_and_answered += 1
        else:
            self.account.buried += 1

    def _problem(self, what: str, entry: Entry) -> None:
        self.problems.append(f"{what}: {entry}")
