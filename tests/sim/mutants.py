"""Mutants: PRPC, or the simulated broker, with ONE safeguard removed. Whoever judges must see it, or the judging is worthless.

Each is a function that replaces a method for as long as it is `applied`. Where one is not caught, a rule of the ledger, a fault
or a kind of call is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

from tests.sim import loop
from tests.sim.options import Options
from tests.sim.run import run_once

__all__ = ["MUTANTS", "Mutant", "Patch", "applied", "limited", "mutant", "shows"]


#: Most steps of a run with a mutant, which may go on for ever: seven times what one needs that is intact.
MAX_STEPS = 12_000


class Patch:
    """What is replaced, and how it was."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def set(self, where: Any, name: str, value: Any) -> None:
        """Replace an attribute of a class or a module."""
        self._undo.append((where, name, where.__dict__[name]))
        setattr(where, name, value)

    def around(self, where: type, name: str, wrapper: Callable[..., Any]) -> None:
        """Replace a method by `wrapper`, which gets the old one before the method's own arguments."""
        old = where.__dict__[name]

        @wraps(old)
        def new(*args: Any, **kwargs: Any) -> Any:
            return wrapper(old, *args, **kwargs)

        self.set(where, name, new)

    def back(self) -> None:
        while self._undo:
            where, name, value = self._undo.pop()
            setattr(where, name, value)


@dataclass(frozen=True, slots=True)
class Mutant:
    """`about`: which safeguard it lacks. `broker`: whose rules its runs have."""

    name: str
    about: str
    apply: Callable[[Patch], None]
    broker: str


MUTANTS: dict[str, Mutant] = {}


def mutant(about: str, broker: str | None = None) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Registers a mutant under its function's name."""

    def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
        rules = broker or ("kafka" if apply.__module__.endswith("kafka") else "redis")
        MUTANTS[apply.__name__] = Mutant(apply.__name__, about, apply, rules)
        return apply

    return register


@contextmanager
def limited() -> Iterator[None]:
    """Runs have no more steps than those with a mutant: what needs more shows none."""
    patch = Patch()
    try:
        patch.set(loop, "MAX_STEPS", MAX_STEPS)
        yield
    finally:
        patch.back()


@contextmanager
def applied(name: str) -> Iterator[None]:
    """Within `prepared`."""
    patch = Patch()
    try:
        with limited():
            MUTANTS[name].apply(patch)
            yield
    finally:
        patch.back()


def shows(name: str, options: Options) -> bool:
    """Whether this run breaks a promise with the mutant, and without it none."""
    with applied(name):
        caught = bool(run_once(options).violations)
    if caught:
        with limited():
            return not run_once(options).violations
    return False


def nothing(*_: Any, **__: Any) -> None:
    """Does nothing."""


# They register themselves.
from tests.sim import mutants_broker, mutants_client, mutants_kafka, mutants_server, mutants_streams  # noqa: E402, F401
