"""The stubs of an app as a module, without a server and without a file."""

from __future__ import annotations

import hashlib
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from prpc.app_server import AppServer
from prpc.stubs.codegen import generate
from prpc.testing.eager import eager_client
from prpc.testing.eager_server import EagerServer

__all__ = ["installed_stubs", "stubs_of"]


def stubs_of(app: AppServer) -> ModuleType:
    """The module that `python -m prpc.create_server_func` would write for the app as it is now.

    Nothing is started. Its stubs call what the default client reaches: `running(app, use=True)` or `eager(app, use=True)`.
    The same functions give the same module. It stands in `sys.modules` under a name of its own, as its classes are looked up
    there. Raises DecodeError where the stubs cannot be written.
    """
    source = _source(app)
    name = f"server_func_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    return sys.modules.get(name) or _made(name, source)


@contextmanager
def installed_stubs(app: AppServer, name: str = "server_func") -> Iterator[ModuleType]:
    """Within the block `import server_func` (or `name`, which may have dots) gives the stubs of the app; then what was there.

    Code that was imported before and holds stubs of a file goes on with those. Raises like `stubs_of`.
    """
    missing = object()
    parent, _, last = name.rpartition(".")
    package = sys.modules.get(parent)
    before, member = sys.modules.get(name), getattr(package, last, missing)
    try:
        module = _made(name, _source(app))
        if package is not None:
            setattr(package, last, module)
        yield module
    finally:
        _put_back(name, before)
        if package is not None:
            setattr(package, last, member) if member is not missing else delattr(package, last)


def _put_back(name: str, module: ModuleType | None) -> None:
    if module is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module


def _source(app: AppServer) -> str:
    descriptions = eager_client(EagerServer(app)).get_function_server()
    return generate(descriptions, queue=app.settings.queue_name)


def _made(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = file = f"<stubs {name}>"
    code = compile(source, file, "exec", dont_inherit=True)
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    before = sys.modules.get(name)
    sys.modules[name] = module  # while it runs, too: dataclasses and pydantic look their module up there
    try:
        exec(code, module.__dict__)
    except BaseException:
        _put_back(name, before)
        raise
    return module
