"""The faults of one run, and which errors each may cause: an error that no fault explains is not true."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BROKER", "Fault", "Faults"]

#: Stands among what a fault hits for the broker and the way to it: that is every server and every client.
BROKER = "broker"


@dataclass(slots=True)
class Fault:
    """One fault, from its beginning to the moment when nothing is left of it but its consequences."""

    name: str
    at: float
    #: Programs by name (a server's name stands for all of its processes, `name-pid` for one), or BROKER.
    hits: frozenset[str]
    #: Whether what it hits is dead from then on.
    kills: bool = False
    #: Whether the broker forgets what it held.
    forgets: bool = False
    #: Whether what it hits stands still, so that it does nothing in time.
    stops: bool = False
    #: Ids of calls whose entries it spoils.
    calls: frozenset[str] = frozenset()
    #: Whether what it hits ends in order, so that its calls are not lost with it.
    orderly: bool = False
    until: float = math.inf

    def hits_process(self, process: str) -> bool:
        """`process` is `name-pid`."""
        return BROKER in self.hits or process in self.hits or process.rpartition("-")[0] in self.hits

    def lasts(self, first: float, last: float, aftermath: float) -> bool:
        """Whether it, or what follows from it for `aftermath` seconds, falls between these moments."""
        return self.at <= last and self.until + aftermath >= first


class Faults:
    """All faults of a run, as its events tell them."""

    def __init__(self) -> None:
        self._by_number: dict[int, Fault] = {}
        #: When programs and processes of each name were killed, in order.
        self._kills: dict[str, list[float]] = {}

    def begin(self, event: Mapping[str, Any]) -> None:
        """Faults begin in their order."""
        fault = self._by_number[event["number"]] = Fault(
            event["name"],
            event["at"],
            frozenset(event["hits"]),
            event.get("kills", False),
            event.get("forgets", False),
            event.get("stops", False),
            frozenset(event.get("calls", ())),
            event.get("orderly", False),
        )
        if fault.kills:
            for name in fault.hits - {BROKER}:
                self._kills.setdefault(name, []).append(fault.at)

    def end(self, event: Mapping[str, Any]) -> None:
        self._by_number[event["number"]].until = event["at"]

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._by_number.values())

    def killed(self, process: str, first: float, last: float) -> bool:
        """Whether this very process was killed between these moments; that the broker was killed is no matter."""
        for name in (process, process.rpartition("-")[0]):
            kills = self._kills.get(name)
            if kills is not None and (at := bisect_left(kills, first)) < len(kills) and kills[at] <= last:
                return True
        return False

    def hit(self, process: str, first: float, last: float, aftermath: float, least: float = 0.0) -> bool:
        """Whether a fault that leaves it alive hit this process, or any hit the broker, between these moments, for `least` s
        at least."""
        near = (f for f in self._by_number.values() if f.lasts(first, last, aftermath) and f.until - f.at >= least)
        return any(BROKER in fault.hits or (not fault.kills and fault.hits_process(process)) for fault in near)

    def any_between(self, first: float, last: float) -> bool:
        """Whether any fault lasted between these moments."""
        return any(fault.lasts(first, last, 0.0) for fault in self._by_number.values())

    def stood_still(self, process: str, first: float, last: float) -> float:
        """Until when this program did, from one time to the next, of what overlaps these moments; minus infinity where it never
        did."""
        stops = [fault for fault in self._by_number.values() if fault.stops and process in fault.hits]
        end = -math.inf
        for fault in sorted(stops, key=lambda fault: fault.at):
            if fault.lasts(first, max(last, end), 0.0):
                end = max(end, fault.until)
        return end

    def forgot_between(self, first: float, last: float) -> bool:
        """Whether the broker lost what it held between these moments."""
        return any(fault.forgets and first <= fault.until and fault.at <= last for fault in self._by_number.values())

    def explain(
        self,
        how: str,
        message_id: str,
        client: str,
        starts: Collection[tuple[str, float]],
        life: tuple[float, float, float],
    ) -> bool:
        """Whether a fault may have caused this error of a client's call. `starts`: on which process each execution began, and
        when; `life`: when the call was sent, when it ended, and for how long a fault has consequences."""
        sent, ended, aftermath = life
        near = [fault for fault in self._by_number.values() if fault.lasts(sent, ended, aftermath)]
        if how == "ClientTimeOutError":
            return any(fault.forgets or message_id in fault.calls for fault in near)
        if how in ("WorkerLostError", "ServerShutdownError"):
            near = [fault for fault in near if not (fault.orderly and how == "WorkerLostError")]
            if not starts:  # whoever had taken it was hit, and did not live to say who it was
                return any(fault.hits for fault in near)
            return all(any(f.hits_process(where) and f.lasts(at, ended, aftermath) for f in near) for where, at in starts)
        return any(BROKER in fault.hits or client in fault.hits for fault in near)

    def loss_known_by(self, process: str | None, start: float, ended: float, within: float) -> tuple[float, float] | None:
        """When the server that had a call from `start` on was killed, and when its caller must know; None where it lives.

        `process`: None where the server did not live to say who it was. `ended`: when the call's outcome came, infinity for
        never. Another server takes the call over within `within` seconds; where that one is killed meanwhile, the next one
        takes it from there.
        """
        kills = [fault for fault in self._by_number.values() if fault.kills]
        killed = [f.at for f in kills if start <= f.at < ended and (process is None or f.hits_process(process))]
        if not killed:
            return None
        due = killed[0] + within
        for at in sorted(fault.at for fault in kills):
            if killed[0] < at <= due:
                due = at + within
        return killed[0], due
