"""All scenes by their names."""

from __future__ import annotations

from dataclasses import replace

from tests.sim import (
    scenes_answers,
    scenes_calls,
    scenes_entries,
    scenes_events,
    scenes_layers,
    scenes_lives,
    scenes_many,
    scenes_plain,
    scenes_registers,
)
from tests.sim.acts import bare_registry, plain_registry, rich_registry, threaded_registry
from tests.sim.options import Options, options_of, peaceful
from tests.sim.stage import Scene

__all__ = ["SCENES", "scene_options"]

SCENES: dict[str, Scene] = {
    "maps": Scene(scenes_many.maps, plain_registry),
    "gathers": Scene(scenes_many.gathers, plain_registry),
    "bars": Scene(scenes_many.bars, plain_registry),
    "bursts": Scene(scenes_many.bursts, plain_registry),
    "rows": Scene(scenes_many.rows, bare_registry),
    # A small message is a long one.
    "wrong": Scene(scenes_calls.wrong, plain_registry, logged=True, settings={"max_message_bytes": 500_000}),
    "stubs": Scene(scenes_calls.stubs, plain_registry),
    "asked": Scene(scenes_calls.asked, plain_registry),
    "layers": Scene(scenes_layers.layers, threaded_registry, logged=True),
    "server_layers": Scene(scenes_layers.server_layers, plain_registry, middleware=scenes_layers.SERVER_LAYERS),
    "events": Scene(scenes_events.events, threaded_registry, logged=True),
    "hostile_words": Scene(scenes_events.hostile_words, plain_registry, settings={"secret_key": "", "duplicate_window": 60}),
    "flood": Scene(scenes_events.flood, plain_registry, settings={"secret_key": ""}),
    "crowd": Scene(scenes_events.crowd, plain_registry),
    "foreign": Scene(scenes_entries.foreign, plain_registry, settings={"secret_key": ""}),
    "hostile": Scene(scenes_entries.hostile, plain_registry),
    "doubles": Scene(scenes_entries.doubles, plain_registry, settings={"secret_key": ""}),
    "seconds": Scene(scenes_answers.seconds, plain_registry, settings={"secret_key": ""}),
    "gaps": Scene(scenes_answers.gaps, plain_registry),
    "twice": Scene(scenes_answers.twice, plain_registry, settings={"secret_key": ""}),
    "late": Scene(scenes_answers.late, plain_registry),
    "letters": Scene(scenes_entries.letters, plain_registry),
    "registers": Scene(scenes_registers.registers, rich_registry, lifespan=scenes_registers.registering),
    "probes": Scene(scenes_lives.probes, plain_registry, settings={"health_port": scenes_lives.PORT}),
    "stops": Scene(scenes_lives.stops, plain_registry),
    "forgotten": Scene(scenes_lives.forgotten, plain_registry),
    "forks": Scene(scenes_lives.forks, plain_registry),
    "blocking": Scene(scenes_plain.blocking, threaded_registry),
    "plain_many": Scene(scenes_plain.plain_many, threaded_registry),
    "plain_streams": Scene(scenes_plain.plain_streams, threaded_registry),
    "crossing": Scene(scenes_plain.crossing, threaded_registry),
}


def scene_options(name: str, seed: int) -> Options:
    """A run for the sake of this scene: one in four in a whole world, the others as their seed draws them."""
    if seed % 4 == 0:
        return peaceful(Options(seed=seed, broker=("redis", "kafka")[seed // 4 % 2], calls=2, span=1.0), name)
    return replace(options_of(seed), scene=name)
