"""All scenes by their names."""

from __future__ import annotations

from tests.sim import scenes_many
from tests.sim.acts import plain_registry
from tests.sim.stage import Scene

__all__ = ["SCENES"]

SCENES: dict[str, Scene] = {
    "maps": Scene(scenes_many.maps, plain_registry),
    "gathers": Scene(scenes_many.gathers, plain_registry),
    "bars": Scene(scenes_many.bars, plain_registry),
}
