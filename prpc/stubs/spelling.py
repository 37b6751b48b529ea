"""Types -> text that names nothing but known types and the types that come along; those are described on the way."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import typing_extensions

from prpc.stubs.describing import Undescribable, describe_type
from prpc.stubs.extras import extra_source
from prpc.stubs.hints import outer_hint, text_of
from prpc.stubs.known import KNOWN_TYPES, VARIADIC
from prpc.stubs.naming import identifier
from prpc.stubs.sources import source_of

__all__ = ["Speller"]

ANY = "typing.Any"
MAX_DEPTH = 30
MAX_TEXT = 10_000

#: Wrappers that say nothing about the value: what they wrap is spelt instead.
_TRANSPARENT = tuple(
    getattr(module, name)
    for module in (typing, typing_extensions)
    for name in ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar")
    if hasattr(module, name)
)
_GUARDS = tuple(
    getattr(module, name) for module in (typing, typing_extensions) for name in ("TypeGuard", "TypeIs") if hasattr(module, name)
)
_ALIASES = tuple({typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType)})
_NEVER = (typing.Never, typing.NoReturn, typing_extensions.Never)


class Speller:
    """Spells the types of one description; `types` are those that come along, `notes` what was lost."""

    def __init__(self, owner: object = None) -> None:
        #: The function whose types are spelt: texts are resolved in its module.
        self._owner = owner
        self.types: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._names: dict[int, str | None] = {}
        #: Keeps every class whose `id` is in `_names` alive.
        self._kept: list[object] = []
        self._known = _known_objects()
        self._scope: tuple[object, ...] = ()
        self._lost = False

    def annotation(self, what: str, hint: object) -> str | None:
        """The text of an annotation; None where there is none. What has to be shown as Any is noted."""
        if hint is inspect.Parameter.empty:
            return None
        outer, self._lost = self._lost, False
        text = self.spell(hint)
        if len(text) > MAX_TEXT:
            text, self._lost = ANY, True
        if self._lost:
            self.notes.append(f"{what}: {text_of(hint)} is not known to callers in full")
        self._lost = outer
        return text

    def note(self, text: str) -> None:
        """A text for a reader of the stub."""
        self.notes.append(text)

    def spell(self, hint: Any, depth: int = 0) -> str:
        """The text of a type. What cannot be expressed becomes `typing.Any`."""
        if depth > MAX_DEPTH:
            return self._any()
        if hint is None or hint is type(None):
            return "None"
        if hint is Any:
            return ANY
        if isinstance(hint, typing.TypeVar | typing_extensions.TypeVar):
            return self._variable(hint, depth)
        if any(hint is never for never in _NEVER):
            return "typing.Never"
        if hint is typing.LiteralString:
            return "str"
        if isinstance(hint, typing.NewType):
            return self.reference(hint) or self.spell(outer_hint(hint.__supertype__, hint), depth + 1)
        if isinstance(hint, _ALIASES):
            return self._generic(hint, (), depth)
        origin = typing_extensions.get_origin(hint)
        return self._class(hint, depth) if origin is None else self._composed(hint, origin, depth)

    def _any(self) -> str:
        self._lost = True
        return ANY

    def _variable(self, variable: Any, depth: int) -> str:
        if any(variable is item for item in self._scope):
            return str(variable.__name__)
        if variable.__constraints__:
            return self._union([outer_hint(item, variable, self._owner) for item in variable.__constraints__], depth)
        return ANY if variable.__bound__ is None else self.spell(outer_hint(variable.__bound__, variable, self._owner), depth + 1)

    def _union(self, items: Sequence[object], depth: int) -> str:
        return " | ".join(dict.fromkeys(self.spell(item, depth + 1) for item in items))

    def _composed(self, hint: Any, origin: Any, depth: int) -> str:
        args = typing_extensions.get_args(hint)
        if origin is typing.Union or origin is types.UnionType:
            return self._union(args, depth)
        if origin is typing.Annotated:
            return self._annotated(args, depth)
        if origin is typing.Literal:
            return self._literal(args)
        if any(origin is wrapper for wrapper in _TRANSPARENT):
            return self.spell(args[0], depth + 1)
        if origin is typing.Unpack or origin is typing_extensions.Unpack:
            inner = self.spell(args[0], depth + 1)
            return ANY if inner == ANY else f"typing.Unpack[{inner}]"
        if any(origin is guard for guard in _GUARDS):
            return "bool"
        if origin is tuple and getattr(hint, "__args__", None) == ():  # the bare typing.Tuple has no such attribute
            return "tuple[()]"
        return self._generic(origin, args, depth)

    def _annotated(self, args: Sequence[Any], depth: int) -> str:
        extras = [text for extra in args[1:] for text in extra_source(extra)]
        inner = self.spell(args[0], depth + 1)
        return f"typing.Annotated[{', '.join([inner, *extras])}]" if extras else inner

    def _literal(self, args: Sequence[Any]) -> str:
        texts = [source_of(item, self) for item in args]
        if any(text is None for text in texts):
            return self._any()
        return f"typing.Literal[{', '.join(filter(None, texts))}]"

    def _class(self, hint: Any, depth: int) -> str:
        if not isinstance(hint, type):
            return self._any()
        generic = getattr(hint, "__pydantic_generic_metadata__", None) or {}
        if generic.get("origin") is not None:
            return self._generic(generic["origin"], generic["args"], depth)
        return self._generic(hint, (), depth)

    def _generic(self, origin: Any, args: Sequence[Any], depth: int) -> str:
        if origin is Callable or origin is typing.Callable:
            return self._callable(args, depth)
        name = self._known.get(id(origin))
        if name is not None:
            arity = KNOWN_TYPES[name]
        else:
            name = self.reference(origin)
            arity = len(_parameters(origin))
        if name is None:
            return self._any()
        name = name.removeprefix("builtins.")
        return self._tuple(args, depth) if arity == VARIADIC else self._filled(name, arity, args, depth)

    def _filled(self, name: str, arity: int, args: Sequence[Any], depth: int) -> str:
        if not arity:
            return name
        texts = [self.spell(item, depth + 1) for item in args][:arity]
        return f"{name}[{', '.join([*texts, *[ANY] * (arity - len(texts))])}]"

    def _tuple(self, args: Sequence[Any], depth: int) -> str:
        if not args:
            return f"tuple[{ANY}, ...]"
        texts = ["..." if item is Ellipsis else self.spell(item, depth + 1) for item in args]
        if any(text == ANY and _is_unpacked(item) for text, item in zip(texts, args, strict=True)):
            return f"tuple[{ANY}, ...]"
        return f"tuple[{', '.join(texts)}]"

    def _callable(self, args: Sequence[Any], depth: int) -> str:
        taken, returns = args if len(args) == 2 else (..., Any)
        inside = "..."
        if isinstance(taken, list):
            inside = f"[{', '.join(self.spell(item, depth + 1) for item in taken)}]"
        return f"collections.abc.Callable[{inside}, {self.spell(returns, depth + 1)}]"

    def reference(self, cls: Any) -> str | None:
        """Full name of a type that comes along; it is described when it is first met. None where it cannot be."""
        if id(cls) in self._names:
            return self._names[id(cls)]
        self._kept.append(cls)
        before = len(self.types), len(self.notes), dict(self._names), self._scope, self._lost
        try:
            self._names[id(cls)] = name = self._free_name(cls)
            self._scope = _parameters(cls)
            described = describe_type(cls, name, self)
        except Exception as exc:
            if not isinstance(exc, Undescribable):
                self._lost = True
            del self.types[before[0] :], self.notes[before[1] :]
            self._names = before[2]
            self._names[id(cls)] = None
            self._scope, self._lost = before[3:]
            return None
        self._scope, self._lost = before[3:]
        self.types.append(described)
        return name

    def _free_name(self, cls: Any) -> str:
        module = str(cls.__module__)
        if module in ("__main__", "__mp_main__"):
            module = _main_name()
        parts = f"{module}.{getattr(cls, '__qualname__', cls.__name__)}".replace("<locals>.", "").split(".")
        name = first = ".".join(identifier(part) for part in parts)[-400:]
        number = 2
        while name in self._names.values() or name in KNOWN_TYPES:
            name, number = f"{first}_{number}", number + 1
        return name


def _known_objects() -> dict[int, str]:
    """id of each known type -> its full name, for the modules that are loaded."""
    found: dict[int, str] = {}
    for name in KNOWN_TYPES:
        module, _, short = name.rpartition(".")
        if module in sys.modules and module != "typing":
            found[id(getattr(sys.modules[module], short, None))] = name
    found.pop(id(None), None)
    return found


def _is_unpacked(hint: Any) -> bool:
    return typing_extensions.get_origin(hint) in (typing.Unpack, typing_extensions.Unpack)


def _parameters(cls: Any) -> tuple[Any, ...]:
    generic = getattr(cls, "__pydantic_generic_metadata__", None) or {}
    if generic:
        return tuple(generic.get("parameters") or ())
    return tuple(getattr(cls, "__parameters__", ()) or getattr(cls, "__type_params__", ()))


def _main_name() -> str:
    """Name under which the program's own module could be imported: the same whether it is run or imported."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    return re.sub(r"\.py[cw]?$", "", str(file).replace("\\", "/").rpartition("/")[2]) if file else "main"
