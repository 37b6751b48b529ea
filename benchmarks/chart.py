"""A run of the contest as a picture: `python -m benchmarks.chart RESULT.json PICTURE.svg`

Bars of calls a second with 256 in flight, and of the median time of calls one after another, longest and shortest first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from html import escape
from math import log10
from pathlib import Path
from typing import Any

__all__ = ["picture"]

#: Contestants as readers know them; who is not named here is not shown.
NAMES = {
    "async on uvloop": "PRPC on uvloop",
    "async": "PRPC, async function",
    "thread": "PRPC, thread function",
    "process": "PRPC, process function",
    "grpc": "gRPC for asyncio, no broker",
    "grpc sync": "gRPC sync, no broker",
    "celery solo": "Celery, solo",
    "celery threads": "Celery, threads",
    "dramatiq": "Dramatiq",
    "taskiq": "Taskiq",
    "taskiq tuned": "Taskiq, polls every 5 ms",
    "faststream": "FastStream",
    "huey": "Huey",
    "huey notify": "Huey, notify",
    "rq": "RQ",
    "rq simple": "RQ, SimpleWorker",
    "streaq": "streaQ",
    "arq": "arq",
    "arq tuned": "arq, polls every 5 ms",
    "saq": "SAQ",
    "saq tuned": "SAQ, polls every 5 ms",
}
WIDTH, LABEL, ROW, BAR = 860, 230, 22, 14
#: Milliseconds at which the bars of times begin.
SHORTEST = 0.1
OURS, OTHERS = "#2f6fde", "#8a94a6"


def _bars(title: str, rows: list[tuple[str, float, str]], top: int) -> Iterator[str]:
    """One panel; its rows are (contestant, length of its bar, text)."""
    most = max(value for _, value, _ in rows)
    room = WIDTH - LABEL - 110
    yield f'<text x="0" y="{top + 16}" class="title">{escape(title)}</text>'
    for number, (name, value, text) in enumerate(rows):
        y = top + 30 + number * ROW
        width = max(1.5, room * value / most)
        colour = OURS if NAMES[name].startswith("PRPC") else OTHERS
        yield f'<text x="{LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(NAMES[name])}</text>'
        yield f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
        yield f'<text x="{LABEL + width + 6:.1f}" y="{y + 11}">{escape(text)}</text>'


def _rows(figures: Mapping[str, Any], what: str) -> dict[str, float]:
    return {name: figures[f"{name} {what}"]["median"] for name in NAMES if f"{name} {what}" in figures}


def picture(result: Mapping[str, Any]) -> str:
    """The SVG of one result of `benchmarks.contest --json`."""
    rates = sorted(_rows(result["figures"], "per_s_256").items(), key=lambda pair: -pair[1])
    times = sorted(_rows(result["figures"], "p50_ms").items(), key=lambda pair: pair[1])
    upper = list(_bars("Calls per second, 256 in flight", [(name, rate, f"{rate:,.0f}") for name, rate in rates], 0))
    top = 30 + len(rates) * ROW + 26
    slower = [(name, log10(ms / SHORTEST), f"{ms:,.2f}") for name, ms in times]
    lower = list(_bars("Median time of one call after another, ms (logarithmic)", slower, top))
    height = top + 30 + len(times) * ROW + 10
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1f2733}.title{font-weight:600;font-size:14px}"
        "@media(prefers-color-scheme:dark){text{fill:#dfe5ee}}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="PRPC beside others">'
    return "\n".join([head, f"<style>{style}</style>", *upper, *lower, "</svg>"]) + "\n"


def main() -> None:
    """Read, draw, write."""
    source, target = map(Path, sys.argv[1:3])
    target.write_text(picture(json.loads(source.read_text())))


if __name__ == "__main__":
    main()
