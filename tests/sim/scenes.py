"""All scenes by their names."""

from __future__ import annotations

from dataclasses import replace

from tests.sim import scenes_calls, scenes_many, scenes_plain
from tests.sim.acts import plain_registry, threaded_registry
from tests.sim.options import Options, options_of
from tests.sim.stage import Scene

__all__ = ["SCENES", "scene_options"]

SCENES: dict[str, Scene] = {
    "maps": Scene(scenes_many.maps, plain_registry),
    "gathers": Scene(scenes_many.gathers, plain_registry),
    "bars": Scene(scenes_many.bars, plain_registry),
    # A small message is a long one.
    "wrong": Scene(scenes_calls.wrong, plain_registry, settings={"max_message_bytes": 500_000}),
    "stubs": Scene(scenes_calls.stubs, plain_registry),
    "asked": Scene(scenes_calls.asked, plain_registry),
    "blocking": Scene(scenes_plain.blocking, threaded_registry),
    "plain_many": Scene(scenes_plain.plain_many, threaded_registry),
    "plain_streams": Scene(scenes_plain.plain_streams, threaded_registry),
    "crossing": Scene(scenes_plain.crossing, threaded_registry),
}


def scene_options(name: str, seed: int) -> Options:
    """A run for the sake of this scene: one in four in a whole world, the others as their seed draws them."""
    if seed % 4 == 0:
        return Options(seed=seed, scene=name, calls=2, span=1.0)
    return replace(options_of(seed, "redis"), scene=name)
