"""What a worker process starts from: where the functions are found, and the server's main module.

Functions cross by name. A function of the script that was started crosses too: the child imports the script under the name
`__mp_main__`, as multiprocessing does, so that what stands under `if __name__ == "__main__":` does not run again.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import runpy
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prpc.exceptions import RegistrationError

__all__ = ["Boot", "importing_main", "interpreter_flags", "logger_levels", "make_boot", "reference"]

#: The name under which a child imports the server's main module.
MAIN = "__mp_main__"

_importing_main = False
_has_main = False


def importing_main() -> bool:
    """Whether this is a worker process that is importing the server's script: a server must not be started here."""
    return _importing_main


@dataclass(frozen=True, slots=True)
class Boot:
    """What a child needs before its first call."""

    #: Whether workers are forked from the keeper, which imports the modules once, or started afresh each.
    fork: bool
    argv: tuple[str, ...]
    #: Pickled references to the functions.
    functions: tuple[bytes, ...]
    #: Modules of the functions, for the keeper to import.
    modules: tuple[str, ...]
    #: Dotted name of the main module (`python -m name`) or path of the script; both None where no function needs it.
    main_name: str | None = None
    main_path: str | None = None
    #: Levels of the server's loggers when the child is started; it makes no record that the server would drop.
    levels: Mapping[str, int] = field(default_factory=dict)
    #: Whether resident bytes are measured after each call.
    measure: bool = False

    def import_main(self) -> None:
        """Import the server's main module, if a function needs it and it was not done yet."""
        global _importing_main, _has_main
        if _has_main or (self.main_name is None and self.main_path is None):
            return
        _importing_main = True
        try:
            if self.main_name is not None:
                content = runpy.run_module(self.main_name, run_name=MAIN, alter_sys=True)
            else:
                content = runpy.run_path(self.main_path or "", run_name=MAIN)
        finally:
            _importing_main = False
        module = types.ModuleType(MAIN)
        module.__dict__.update(content)
        sys.modules["__main__"] = sys.modules[MAIN] = module
        _has_main = True

    def preload(self) -> None:
        """Import what the functions need, for the children to inherit. A child reports what goes wrong here."""
        for name in ("", *self.modules):
            try:
                if name:
                    importlib.import_module(name)
                else:
                    self.import_main()
            except BaseException:
                logging.getLogger(__name__).debug("preloading failed", exc_info=True)

    def load(self) -> list[Callable[..., Any]]:
        """Import the functions."""
        self.import_main()
        return [pickle.loads(function) for function in self.functions]


def make_boot(functions: Sequence[Callable[..., Any]], *, fork: bool, measure: bool) -> Boot:
    """Describe how a child gets at these functions. Raises RegistrationError naming the one that it cannot."""
    references = tuple(reference(function) for function in functions)
    modules = {str(getattr(function, "__module__", "")): None for function in functions}
    name: str | None = None
    path: str | None = None
    for function, text in zip(functions, references, strict=True):
        if b"__main__" in text:
            name, path = _find_main(function)
            # A child's instances of the script's classes come back under that name, as with multiprocessing.
            sys.modules.setdefault(MAIN, sys.modules["__main__"])
    wanted = tuple(module for module in modules if module and module != "__main__")
    return Boot(fork, tuple(sys.argv), references, wanted, name, path, measure=measure)


def reference(function: Callable[..., Any]) -> bytes:
    """What a child finds the function by. Raises RegistrationError where it could not."""
    try:
        return pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    except Exception as exc:
        raise _refuse(function, _reason(function, exc)) from exc


def _reason(function: Callable[..., Any], exc: Exception) -> str:
    qualname = getattr(function, "__qualname__", "")
    if "<lambda>" in qualname:
        return "a lambda has no name by which it could be imported"
    if "<locals>" in qualname:
        return f"it is defined inside {qualname.partition('.<locals>')[0]}() and cannot be imported from outside"
    return f"it cannot be imported by its name or its object cannot be pickled ({exc})"


def _refuse(function: Callable[..., Any], reason: str) -> RegistrationError:
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', None) or repr(function)}"
    advice = "define it with `def` at the top level of a module, or register it for a thread worker"
    return RegistrationError(f"{name} cannot run in a process worker: {reason}; {advice}", function=name)


def _find_main(function: Callable[..., Any]) -> tuple[str | None, str | None]:
    """Name or path of the main module."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    path = getattr(main, "__file__", None)
    if name == "__main__" or (name or "").endswith(".__main__"):
        raise _refuse(function, "a package's __main__.py cannot be imported again")
    if name is not None:
        return name, None
    if path is None or not os.path.exists(path):
        raise _refuse(function, "it belongs to an interactive session and not to a file")
    return None, os.path.abspath(path)


def logger_levels() -> dict[str, int]:
    """Levels of this process's loggers by name, "" for the root; those without one of their own are left out."""
    named = {name: logger.level for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)}
    return {"": logging.root.level, **{name: level for name, level in named.items() if level}}


def interpreter_flags() -> list[str]:
    """Options that give a child the interpreter mode of this process."""
    flags = sys.flags
    single = {"B": flags.dont_write_bytecode, "s": flags.no_user_site, "S": flags.no_site, "E": flags.ignore_environment}
    options = ["-" + "O" * flags.optimize] if flags.optimize else []
    options += ["-I"] if flags.isolated else [f"-{letter}" for letter, is_set in single.items() if is_set]
    options += [f"-W{option}" for option in sys.warnoptions]
    options += ["-Xdev"] if flags.dev_mode else []
    options += [f"-Xutf8={flags.utf8_mode:d}"]
    return options
