"""All scenes by their names."""

from __future__ import annotations

from tests.sim import scenes_calls, scenes_many
from tests.sim.acts import plain_registry
from tests.sim.stage import Scene

__all__ = ["SCENES"]

SCENES: dict[str, Scene] = {
    "maps": Scene(scenes_many.maps, plain_registry),
    "gathers": Scene(scenes_many.gathers, plain_registry),
    "bars": Scene(scenes_many.bars, plain_registry),
    # A small message is a long one.
    "wrong": Scene(scenes_calls.wrong, plain_registry, settings={"max_message_bytes": 500_000}),
    "stubs": Scene(scenes_calls.stubs, plain_registry),
    "asked": Scene(scenes_calls.asked, plain_registry),
}
