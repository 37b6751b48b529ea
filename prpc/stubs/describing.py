"""Classes, aliases and NewTypes -> their descriptions, or Undescribable."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import typing_extensions

from prpc.stubs.extras import field_arguments
from prpc.stubs.hints import class_hints, outer_hint
from prpc.stubs.known import FACTORIES, MODEL_OPTIONS
from prpc.stubs.sources import source_of

__all__ = ["Spelling", "Undescribable", "describe_type"]

MAX_DOC = 5_000
MAX_MEMBERS = 10_000


class Undescribable(Exception):
    """A type that callers cannot have; it is shown as Any."""


class Spelling(Protocol):
    """What a description needs of the one who spells."""

    def annotation(self, what: str, hint: object) -> str | None: ...

    def spell(self, hint: Any, depth: int = 0) -> str: ...

    def reference(self, cls: Any) -> str | None: ...

    def note(self, text: str) -> None: ...


def describe_type(cls: Any, name: str, spelling: Spelling) -> dict[str, Any]:
    """The description of one type. Raises Undescribable for what no stub can express."""
    kind, describe = _kind(cls)
    return {"name": name, "kind": kind, **_doc(cls, kind), **_type_parameters(cls, spelling), **describe(cls, name, spelling)}


def _kind(cls: Any) -> tuple[str, Callable[[Any, str, Spelling], dict[str, Any]]]:
    if isinstance(cls, typing.NewType):
        return "newtype", _newtype
    if not isinstance(cls, type) and hasattr(cls, "__value__"):
        return "alias", _alias
    if typing_extensions.is_typeddict(cls):
        return "typeddict", _typeddict
    if not isinstance(cls, type):
        raise Undescribable
    if issubclass(cls, enum.Enum):
        return "enum", _enum
    if _is_model(cls):
        return "model", _model
    if "__dataclass_fields__" in vars(cls):
        return "dataclass", _dataclass
    if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return "namedtuple", _namedtuple
    raise Undescribable


def _is_model(cls: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel) and cls not in (pydantic.BaseModel, pydantic.RootModel)


def _doc(cls: Any, kind: str) -> dict[str, str]:
    text = vars(cls).get("__doc__") if isinstance(cls, type) else None
    made = kind in ("dataclass", "namedtuple") and isinstance(text, str) and text.startswith(f"{cls.__name__}(")
    if not isinstance(text, str) or made or text == "An enumeration.":
        return {}
    return {"doc": inspect.cleandoc(text)[:MAX_DOC]}


def _type_parameters(cls: Any, spelling: Spelling) -> dict[str, Any]:
    generic = getattr(cls, "__pydantic_generic_metadata__", None) or {}
    found = generic.get("parameters") if generic else getattr(cls, "__parameters__", ()) or getattr(cls, "__type_params__", ())
    if not found:
        return {}
    return {"type_params": [_type_parameter(item, cls, spelling) for item in found]}


def _type_parameter(variable: Any, cls: Any, spelling: Spelling) -> dict[str, Any]:
    if not isinstance(variable, typing.TypeVar | typing_extensions.TypeVar):
        raise Undescribable
    described: dict[str, Any] = {"name": variable.__name__}
    if variable.__constraints__:
        described["constraints"] = [spelling.spell(outer_hint(item, variable, cls)) for item in variable.__constraints__]
    elif variable.__bound__ is not None:
        described["bound"] = spelling.spell(outer_hint(variable.__bound__, variable, cls))
    for variance in ("covariant", "contravariant"):
        if getattr(variable, f"__{variance}__", False):
            described["variance"] = variance
    return described


def _newtype(cls: Any, name: str, spelling: Spelling) -> dict[str, Any]:
    text = spelling.spell(outer_hint(cls.__supertype__, cls))
    if "|" in text or text.startswith("typing.") or text in ("None", "bool", "range"):
        raise Undescribable
    return {"value": text}


def _alias(cls: Any, name: str, spelling: Spelling) -> dict[str, Any]:
    return {"value": spelling.annotation(name, outer_hint(cls.__value__, cls))}


def _enum(cls: type[enum.Enum], name: str, spelling: Spelling) -> dict[str, Any]:
    base, convert = _enum_base(cls)
    members: list[dict[str, str]] = []
    for key, member in cls.__members__.items():
        text = source_of(convert(member.value), spelling)
        if text is None or not key.isidentifier() or key.startswith("__") or len(members) >= MAX_MEMBERS:
            raise Undescribable
        members.append({"name": key, "value": text})
    if not members:
        raise Undescribable
    return {"base": base, "members": members}


def _enum_base(cls: type[enum.Enum]) -> tuple[str, Callable[[Any], Any]]:
    for base in (enum.IntFlag, enum.Flag, enum.StrEnum, enum.IntEnum):
        if issubclass(cls, base):
            return base.__name__, str if base is enum.StrEnum else int
    for plain in (str, int, float):
        if issubclass(cls, plain):
            return plain.__name__, plain
    return "Enum", lambda value: value


def _typeddict(cls: Any, name: str, spelling: Spelling) -> dict[str, Any]:
    fields = []
    for key, hint in class_hints(cls).items():
        field: dict[str, Any] = {"name": key, "annotation": spelling.annotation(f"{name}.{key}", hint)}
        marks = set(_marks(hint))
        if "NotRequired" in marks or ("Required" not in marks and key in cls.__optional_keys__):
            field["required"] = False
        if "ReadOnly" in marks or key in getattr(cls, "__readonly_keys__", ()):
            field["readonly"] = True
        fields.append(field)
    return {"fields": fields}


def _marks(hint: Any) -> Iterator[str]:
    for _ in range(5):
        origin = typing_extensions.get_origin(hint)
        if origin is None:
            return
        yield getattr(origin, "_name", None) or ""
        hint = typing_extensions.get_args(hint)[0]


def _namedtuple(cls: Any, name: str, spelling: Spelling) -> dict[str, Any]:
    hints = class_hints(cls)
    fields = []
    for key in cls._fields:
        if key.startswith("_"):
            raise Undescribable
        field = {"name": key, "annotation": spelling.annotation(f"{name}.{key}", hints.get(key, Any))}
        text = source_of(cls._field_defaults[key], spelling) if key in cls._field_defaults else None
        fields.append(field if text is None else {**field, "default": text})
    return {"fields": fields}


def _dataclass(cls: Any, name: str, spelling: Spelling) -> dict[str, Any]:
    params = cls.__dataclass_params__
    options = {"frozen": params.frozen, "order": params.order, "unsafe_hash": params.unsafe_hash}
    chosen = {key: True for key, value in options.items() if value}
    if "__slots__" in vars(cls):
        chosen["slots"] = True
    if not params.eq:
        chosen["eq"] = False
    base, inherited = _base(cls, "__dataclass_fields__", spelling)
    hints = class_hints(cls)
    fields = [
        _dataclass_field(field, name, hints, spelling)
        for field in dataclasses.fields(cls)
        if inherited.get(field.name) is not field
    ]
    return {**base, "options": chosen, "fields": fields}


def _base(cls: Any, fields: str, spelling: Spelling) -> tuple[dict[str, str], Mapping[str, Any]]:
    """The one base that comes along too, and its fields; nothing where there are several: then all fields are the class's own."""
    bases = [base for base in cls.__bases__ if getattr(base, fields, None)]
    if len(bases) != 1 or fields not in vars(bases[0]):
        return {}, {}
    for written in getattr(cls, "__orig_bases__", None) or cls.__bases__ if "__orig_bases__" in vars(cls) else cls.__bases__:
        if written is bases[0] or typing_extensions.get_origin(written) is bases[0]:
            text = spelling.spell(written)
            return ({}, {}) if text.startswith("typing.") else ({"base": text}, getattr(bases[0], fields))
    return {}, {}


def _dataclass_field(field: Any, name: str, hints: Mapping[str, Any], spelling: Spelling) -> dict[str, Any]:
    if field.name.startswith("__"):
        raise Undescribable
    described: dict[str, Any] = {"name": field.name}
    described["annotation"] = spelling.annotation(f"{name}.{field.name}", hints.get(field.name, Any))
    if not field.init:
        described["init"] = False
    if field.kw_only:
        described["kw_only"] = True
    if field.default_factory is not dataclasses.MISSING:
        return {**described, **_factory(field.default_factory, f"{name}.{field.name}", spelling)}
    if field.default is dataclasses.MISSING:
        return described
    return {**described, **_shown(_fixed(field.default, spelling), f"{name}.{field.name}", spelling)}


def _shown(default: str | None, what: str, spelling: Spelling) -> dict[str, str]:
    if default is not None:
        return {"default": default}
    spelling.note(f"{what}: its default is known to the server only, here it has to be given")
    return {}


def _fixed(value: Any, spelling: Spelling) -> str | None:
    """Source text of a dataclass's default, which the class in the stub has to find hashable."""
    params = getattr(value, "__dataclass_params__", None)
    if params is not None and params.eq and not (params.frozen or params.unsafe_hash):
        return None
    if isinstance(value, list | dict | set | bytearray):
        return None
    return source_of(value, spelling)


def _factory(factory: Any, what: str, spelling: Spelling) -> dict[str, str]:
    module, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")
    full = name if module == "builtins" else f"{module}.{name}"
    return {"factory": full} if full in FACTORIES else _shown(None, what, spelling)


def _model(cls: Any, name: str, spelling: Spelling) -> dict[str, Any]:
    pydantic = sys.modules["pydantic"]
    if not cls.__pydantic_complete__:
        cls.model_rebuild(raise_errors=False)
    fields = dict(cls.model_fields)
    if issubclass(cls, pydantic.RootModel):
        return {"root": spelling.annotation(name, fields["root"].annotation)}
    base, inherited = _model_base(cls, spelling)
    own = [key for key in fields if key in inspect.get_annotations(cls) or key not in inherited]
    described = [_model_field(key, fields[key], name, spelling) for key in own]
    return {**base, "config": _config(cls), "fields": described}


def _model_base(cls: Any, spelling: Spelling) -> tuple[dict[str, str], Mapping[str, Any]]:
    bases = [base for base in cls.__bases__ if _is_model(base)]
    if len(bases) != 1:
        return {}, {}
    text = spelling.spell(bases[0])
    return ({}, {}) if text.startswith("typing.") else ({"base": text}, bases[0].model_fields)


def _config(cls: Any) -> dict[str, Any]:
    config = cls.model_config
    return {key: config[key] for key, allowed in MODEL_OPTIONS.items() if key in config and config[key] in allowed}


def _model_field(key: str, field: Any, name: str, spelling: Spelling) -> dict[str, Any]:
    described: dict[str, Any] = {"name": key, "annotation": spelling.annotation(f"{name}.{key}", field.annotation)}
    arguments = field_arguments(field)
    if arguments:
        described["arguments"] = arguments
    if field.default_factory is not None:
        return {**described, **_factory(field.default_factory, f"{name}.{key}", spelling)}
    if field.is_required():
        return described
    return {**described, **_shown(source_of(field.default, spelling), f"{name}.{key}", spelling)}
