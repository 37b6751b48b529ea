"""The names of a generated file: functions first, then types, then what has to be imported."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Collection, Iterable, Mapping

__all__ = ["Names", "RESERVED", "identifier"]

#: Names that the file uses itself and that therefore no function or type in it can have.
RESERVED = frozenset({"SERVER_DEFAULT", "SERVER_SCHEMA", "annotations"})


def identifier(name: str) -> str:
    """The nearest Python name: dots and what cannot stand in a name become underscores; no `__dunder__`, no keyword."""
    normal = unicodedata.normalize("NFKC", name)
    found = "".join(unit if ("a" + unit).isidentifier() else "_" for unit in normal)
    if found.startswith("__"):
        found = found.strip("_") or "_"
    if not found.isidentifier():
        found = "_" + found
    return found + "_" if keyword.iskeyword(found) or found in RESERVED else found


class Names:
    """Who is called what. Functions and types get their names at once, imports when they are first needed."""

    def __init__(self, functions: Iterable[str], types: Iterable[str], fields: Iterable[str] = ()) -> None:
        self._taken: set[str] = set(RESERVED) | set(keyword.kwlist)
        self._fields = frozenset(fields)
        self._imports: dict[str, set[str]] = {}
        self._aliases: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self.functions = self._functions(list(functions))
        self.types = {target: self._own(self._candidates(target)) for target in types}

    def _functions(self, names: list[str]) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for name in sorted(names, key=lambda name: identifier(name) != name):
            found[name] = self._own([identifier(name)])
        return found

    def _own(self, candidates: list[str]) -> str:
        number = 2
        for candidate in candidates:
            if candidate not in self._taken:
                break
        else:
            candidate = f"{candidates[0]}_{number}"
            while candidate in self._taken:
                number += 1
                candidate = f"{candidates[0]}_{number}"
        self._taken.add(candidate)
        return candidate

    @staticmethod
    def _candidates(target: str) -> list[str]:
        parts = target.partition(":")[2].partition("#")[0].split(".")
        return [identifier("_".join(parts[-count:])) for count in range(1, min(len(parts), 4) + 1)]

    def type_variable(self, target: str, name: str) -> None:
        """Give a type variable its name in the file."""
        self.types[target] = self._own([identifier(name)])

    def spell(self, target: str, shadowed: Collection[str] = ()) -> str:
        """The name for a full name, where the names in `shadowed` mean something else (fields of a class)."""
        local = self.types[target] if target in self.types else self._known.get(target) or self._import(target)
        if local not in shadowed:
            return local
        return self._alias(target, local)

    def _import(self, target: str) -> str:
        module, _, name = target.rpartition(".")
        local = name
        while local in self._taken:
            local = f"_{local}"
        self._taken.add(local)
        self._known[target] = local
        if module != "builtins" or local != name:
            self._imports.setdefault(module, set()).add(name if local == name else f"{name} as {local}")
        return local

    def _alias(self, target: str, local: str) -> str:
        if target in self._aliases:
            return self._aliases[target]
        alias = f"_{local}"
        while alias in self._taken or alias in self._fields:
            alias = f"_{alias}"
        self._taken.add(alias)
        self._aliases[target] = alias
        if target not in self.types:
            module, _, name = target.rpartition(".")
            self._imports.setdefault(module, set()).add(f"{name} as {alias}")
        return alias

    def alias_of(self, target: str) -> str | None:
        """The second name that a type of the file got because a class has a field of its first."""
        return self._aliases.get(target)

    def imports(self) -> Mapping[str, list[str]]:
        """Module -> what is imported from it, both sorted."""
        return {module: sorted(self._imports[module]) for module in sorted(self._imports)}
