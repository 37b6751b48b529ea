"""The types and constructors that a stub may name without defining them: one closed table for writer and reader."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "CONSTRAINTS",
    "CONSTRUCTORS",
    "DATACLASS_OPTIONS",
    "ENUM_BASES",
    "FACTORIES",
    "FIELD_ARGUMENTS",
    "KNOWN_TYPES",
    "MODEL_OPTIONS",
    "VARIADIC",
    "local_name",
]

#: Number of arguments of `tuple`, which takes any.
VARIADIC = -1


def _types(module: str, **arities: str) -> dict[str, int]:
    counts = {"plain": 0, "one": 1, "two": 2, "three": 3, "any": VARIADIC}
    return {f"{module}.{name}": counts[kind] for kind, names in arities.items() for name in names.split()}


#: Full name -> number of type arguments. Everything else is either defined in the stub itself or shown as `Any`.
KNOWN_TYPES: Mapping[str, int] = MappingProxyType(
    {
        **_types(
            "builtins",
            plain="bool int float complex str bytes bytearray memoryview object range",
            one="list set frozenset type",
            two="dict",
            any="tuple",
        ),
        **_types("typing", plain="Any Never NoReturn"),
        **_types(
            "collections.abc",
            plain="Hashable Sized",
            one="Iterable Iterator Reversible Container Collection Sequence MutableSequence Set MutableSet KeysView ValuesView "
            "AsyncIterable AsyncIterator Awaitable",
            two="Mapping MutableMapping ItemsView AsyncGenerator",
            three="Generator Coroutine",
        ),
        **_types("collections", one="deque Counter", two="defaultdict OrderedDict ChainMap"),
        **_types("datetime", plain="date datetime time timedelta timezone tzinfo"),
        **_types("decimal", plain="Decimal"),
        **_types("fractions", plain="Fraction"),
        **_types("ipaddress", plain="IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network"),
        **_types("os", one="PathLike"),
        **_types("pathlib", plain="Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath"),
        **_types("uuid", plain="UUID"),
        **_types("zoneinfo", plain="ZoneInfo"),
        **_types(
            "pydantic",
            plain="AnyUrl AnyHttpUrl HttpUrl SecretStr SecretBytes ByteSize AwareDatetime NaiveDatetime PastDate PastDatetime "
            "FutureDate FutureDatetime",
        ),
    }
)

#: Constructors that a default may call -> the keyword arguments that each takes.
CONSTRUCTORS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "builtins.bytearray": frozenset(),
        "builtins.complex": frozenset(),
        "builtins.float": frozenset(),
        "builtins.frozenset": frozenset(),
        "builtins.set": frozenset(),
        "datetime.date": frozenset(),
        "datetime.datetime": frozenset({"tzinfo", "fold"}),
        "datetime.time": frozenset({"tzinfo", "fold"}),
        "datetime.timedelta": frozenset({"days", "seconds", "microseconds"}),
        "datetime.timezone": frozenset(),
        "decimal.Decimal": frozenset(),
        "fractions.Fraction": frozenset(),
        "pathlib.Path": frozenset(),
        "pathlib.PurePath": frozenset(),
        "pathlib.PurePosixPath": frozenset(),
        "pathlib.PureWindowsPath": frozenset(),
        "uuid.UUID": frozenset(),
    }
)

#: Base of an enum in a description -> the bases of the class in the stub.
ENUM_BASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Enum": ("enum.Enum",),
        "IntEnum": ("enum.IntEnum",),
        "StrEnum": ("enum.StrEnum",),
        "Flag": ("enum.Flag",),
        "IntFlag": ("enum.IntFlag",),
        "str": ("builtins.str", "enum.Enum"),
        "int": ("builtins.int", "enum.Enum"),
        "float": ("builtins.float", "enum.Enum"),
    }
)

#: Arguments of pydantic's `Field` that come along, beside default and default_factory.
FIELD_ARGUMENTS = (
    "alias",
    "validation_alias",
    "serialization_alias",
    "title",
    "description",
    "gt",
    "ge",
    "lt",
    "le",
    "multiple_of",
    "min_length",
    "max_length",
    "pattern",
    "strict",
    "allow_inf_nan",
    "max_digits",
    "decimal_places",
)

#: Constraints that `Annotated` may carry -> their keyword arguments.
CONSTRAINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "annotated_types.Gt": ("gt",),
        "annotated_types.Ge": ("ge",),
        "annotated_types.Lt": ("lt",),
        "annotated_types.Le": ("le",),
        "annotated_types.MultipleOf": ("multiple_of",),
        "annotated_types.MinLen": ("min_length",),
        "annotated_types.MaxLen": ("max_length",),
        "pydantic.Field": FIELD_ARGUMENTS,
    }
)

_SWITCH = (True, False, None)

#: Settings of a pydantic model (`model_config`) that come along -> the values of each.
MODEL_OPTIONS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "extra": ("allow", "ignore", "forbid"),
        "frozen": _SWITCH,
        "populate_by_name": _SWITCH,
        "validate_by_name": _SWITCH,
        "validate_by_alias": _SWITCH,
        "str_strip_whitespace": _SWITCH,
        "strict": _SWITCH,
        "regex_engine": ("rust-regex", "python-re"),
        "allow_inf_nan": _SWITCH,
    }
)

#: Arguments of the decorator `dataclass` that come along.
DATACLASS_OPTIONS = ("eq", "frozen", "order", "slots", "unsafe_hash")

#: What a field's default_factory may be.
FACTORIES = ("list", "dict", "set", "frozenset", "tuple", "str", "bytes", "int", "float", "bool", "uuid.uuid4")


def local_name(full_name: str) -> str:
    """Last part of a full name: `Any` of `typing.Any`."""
    return full_name.rpartition(".")[2]
