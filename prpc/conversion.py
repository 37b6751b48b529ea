"""Values from the wire turned into what an annotation asks for.

The wire carries plain data: a dataclass arrives as a dict, an enum member as its value, from other languages a date as a
text. pydantic does the work, in its lax mode; it is imported when the first annotation needs it. A value that already has
one of the annotated built-in types passes without a call of pydantic.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import operator
import reprlib
import sys
import threading
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ForwardRef,
    Literal,
    NotRequired,
    Protocol,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
)
from uuid import UUID

import typing_extensions

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["ConversionError", "Converter", "converter_for", "readable", "resolve_hints", "short_repr", "unpacked_fields"]

#: Annotation -> the types whose instances satisfy it as they are.
_EXACT: dict[Any, tuple[type, ...]] = {
    int: (int, bool),  # a bool is an int, and a local call would keep it
    None: (type(None),),
    type(None): (type(None),),
    **{
        cls: (cls,)
        for cls in (
            *(bool, str, float, complex, bytes, bytearray, list, tuple, dict, set, frozenset),
            *(datetime, date, time, timedelta, Decimal, UUID),
        )
    },
    Path: (type(Path()),),
}

#: Origins of annotations whose values have no form on the wire, or one that a conversion would spoil.
_LEFT_ALONE = frozenset(
    {
        collections.abc.Callable,
        collections.abc.Iterator,
        collections.abc.Generator,
        collections.abc.AsyncIterable,
        collections.abc.AsyncIterator,
        collections.abc.AsyncGenerator,
        collections.abc.Awaitable,
        collections.abc.Coroutine,
        type,
    }
)
#: Anything that is iterated: pydantic would hand over a lazy iterator without a length.
_ITERABLES = frozenset(
    {collections.abc.Iterable, collections.abc.Collection, collections.abc.Container, collections.abc.Reversible}
)
_CONTAINERS = frozenset({list, tuple, set, frozenset, collections.deque})
_UNIONS = (Union, types.UnionType)

#: Types of which a reader knows what fits: the text needs no details.
_SELF_EVIDENT = frozenset({int, float, bool, str, bytes, type(None)})
#: Wrong parts of one value that are told, and most that are looked at: a million would hold up the server for seconds.
_MAX_DETAILS, _MOST_ERRORS = 3, 1000


class ConversionError(ValueError):
    """A value does not fit an annotation. The text continues a sentence: `must be int, not 'x' (...)`."""


class Converter(Protocol):
    """Turns a value into what an annotation asks for."""

    def __call__(self, value: Any) -> Any:
        """The value as the annotation wants it. Raises ConversionError."""
        ...


def converter_for(annotation: Any) -> Callable[[Any], Any] | None:
    """What converts values for this annotation; never raises.

    None where there is nothing to convert: Any, a missing annotation, one that cannot be resolved, or one that holds a
    class which is neither plain data nor dataclass, enum, TypedDict, NamedTuple or pydantic model. A dataclass is made
    also where this is so for some of its fields: those stay as they came.
    """
    exact = _exact_types(annotation)
    if exact:
        return _Converting(annotation, exact)
    if (
        annotation is Any
        or annotation is object
        or annotation is inspect.Parameter.empty
        or isinstance(annotation, str | ForwardRef)
    ):
        return None
    validate = _validator(annotation)
    return None if validate is None else _Converting(annotation, frozenset(), validate)


def resolve_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Parameter (and "return") -> annotation, texts resolved; never raises, what cannot be resolved is left out."""
    target = _plain_function(function)
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:  # a hint may raise whatever its expression raises
        return _resolve_one_by_one(target)


def _plain_function(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isroutine(function) or isinstance(function, type)):
        function = inspect.getattr_static(type(function), "__call__", function)
    try:
        return inspect.unwrap(function)
    except ValueError:  # a circle of __wrapped__, in which get_type_hints would run for ever
        return types.SimpleNamespace(__annotations__={})


def _resolve_one_by_one(target: Any) -> dict[str, Any]:
    """Of a class, names mean what they mean in its module: a field `date: date | None = None` hides nothing."""
    hints: dict[str, Any] = {}
    for part in reversed(target.__mro__) if isinstance(target, type) else (target,):
        try:
            annotations = dict(part.__annotations__)
        except Exception:
            continue
        names = getattr(part, "__globals__", None) or vars(sys.modules.get(part.__module__, types))
        for name, annotation in annotations.items():
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints.update(typing.get_type_hints(holder, globalns=names, include_extras=True))
            except Exception:  # one bad hint must not take the others along
                continue
    return hints


class _Converting:
    """A converter; `exact` holds the types that pass as they are."""

    __slots__ = ("_validate", "annotation", "exact")

    def __init__(self, annotation: Any, exact: frozenset[type], validate: Callable[[Any], Any] | None = None) -> None:
        self.annotation = annotation
        self.exact = exact
        self._validate = validate

    def __call__(self, value: Any) -> Any:
        if type(value) in self.exact:
            return value
        if self._validate is None:
            self._validate = _validator(self.annotation) or (lambda value: value)
        try:
            return _guarded(self._validate, value)
        except ConversionError as exc:
            details = "" if self.exact and self.exact <= _SELF_EVIDENT else f" ({exc})"
            text = f"must be {readable(self.annotation)}, not {short_repr(value)}{details}"
            raise ConversionError(text) from exc.__cause__


def _guarded(validate: Callable[[Any], Any], value: Any) -> Any:
    """The validated value. Raises ConversionError with nothing but the details."""
    from pydantic import ValidationError

    try:
        return validate(value)
    except ValidationError as exc:
        raise ConversionError(_details(exc)) from exc
    except RecursionError as exc:
        raise ConversionError("nested too deeply") from exc
    except (Exception, SystemExit) as exc:  # validators and __post_init__ are user code
        raise ConversionError(f"{type(exc).__name__}: {short_repr(exc, str)}") from exc


def _details(error: ValidationError) -> str:
    if error.error_count() > _MOST_ERRORS:
        return f"{error.error_count()} parts of it do not fit"
    lines: dict[str, None] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
        lines.setdefault(f"{where}: {item['msg']}" if where else item["msg"])
    more = len(lines) - _MAX_DETAILS
    return "; ".join(list(lines)[:_MAX_DETAILS]) + (f"; and {more} more" if more > 0 else "")


def readable(annotation: Any) -> str:
    """The annotation for a reader: `int or float`, `list[Point]`, `one of 'a', 'b'`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "None"
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(readable(arg) for arg in args))
    if origin is Annotated:
        return readable(args[0])
    if origin is Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin is not None and args:
        inner = ", ".join("..." if arg is ... else readable(arg) for arg in args)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return getattr(annotation, "__name__", None) or repr(annotation).replace("typing.", "")


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel = 3


def short_repr(value: Any, part: Callable[[Any], Any] | None = None) -> str:
    """A repr of bounded length that never raises: of the value, or of what `part` makes of it."""
    try:
        return _short.repr(value if part is None else part(value))
    except BaseException:  # repr of a huge int, or code of a user's class, which may raise anything
        return f"a value of type {type(value).__name__}"


def _exact_types(annotation: Any) -> frozenset[type]:
    """Types that satisfy the annotation as they are, where it names nothing but built-in ones; else empty."""
    parts = get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,)
    try:
        return frozenset(cls for part in parts for cls in _EXACT[part])
    except (KeyError, TypeError):  # TypeError: an annotation that cannot be hashed
        return frozenset()


def _validator(annotation: Any) -> Callable[[Any], Any] | None:
    return _adapted(annotation) or _adapted(annotation, by_field=True)


def _adapted(annotation: Any, *, by_field: bool = False) -> Callable[[Any], Any] | None:
    """pydantic's validation; `by_field`: with our own for the dataclasses that pydantic refuses. None where it refuses all."""
    from pydantic import TypeAdapter

    try:
        prepared = _prepare(annotation, by_field)
        with _building, warnings.catch_warnings(), _typed_dicts_lent(prepared):
            warnings.simplefilter("ignore")  # pydantic comments on field names and the like; not ours to judge
            adapter: TypeAdapter[Any] = TypeAdapter(prepared)
            if adapter.pydantic_complete or adapter.rebuild(raise_errors=False):
                # A model travels by its fields' names; other languages write it by their aliases.
                return functools.partial(adapter.validate_python, by_alias=True, by_name=True)
    except Exception:  # whatever an annotation holds, registering the function goes on
        return None
    return None


class _ByField:
    """Makes a dataclass that pydantic refuses for some of its fields: those stay as they came, the others are converted."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._converters: dict[str, Callable[[Any], Any] | None] | None = None

    def __call__(self, value: Any) -> Any:
        cls = self._cls
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ConversionError(f"Input should be a dictionary or an instance of {cls.__name__}")
        if self._converters is None:  # not earlier: the fields may lead back here
            hints = resolve_hints(cls)
            self._converters = {name: converter_for(hints.get(name, Any)) for name in inspect.signature(cls).parameters}
        given: dict[str, Any] = {}
        for name in self._converters.keys() & value.keys():
            convert = self._converters[name]
            try:
                given[name] = value[name] if convert is None else convert(value[name])
            except ConversionError as exc:
                raise ConversionError(f"{name} {exc}") from exc
        return cls(**given)


@functools.lru_cache(maxsize=256)
def _by_field(cls: type) -> Any:
    from pydantic import PlainValidator

    return Annotated[Any, PlainValidator(_ByField(cls))]


class _NotConvertedError(Exception):
    """The annotation holds something that is left alone."""


def _prepare(annotation: Any, by_field: bool) -> Any:
    """The annotation with what pydantic would spoil or refuse replaced. Raises _NotConvertedError."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _LEFT_ALONE or origin in _LEFT_ALONE:
        raise _NotConvertedError
    if annotation in _ITERABLES or origin in _ITERABLES:
        return _iterable_of(args[0] if args else Any)
    if by_field and isinstance(annotation, type) and dataclasses.is_dataclass(annotation) and _adapted(annotation) is None:
        return _by_field(annotation)
    if not args or origin is Literal:
        return annotation
    if origin is Annotated:
        return Annotated[(_prepare(args[0], by_field), *args[1:])]
    prepared = tuple(arg if arg is ... else _prepare(arg, by_field) for arg in args)
    if all(new is old for new, old in zip(prepared, args, strict=True)):
        return annotation
    return functools.reduce(operator.or_, prepared) if origin in _UNIONS else origin[prepared]


def _iterable_of(item: Any) -> Any:
    from pydantic import PlainValidator

    convert = None if isinstance(item, TypeVar) else converter_for(item)

    def each(value: Any) -> Any:
        if convert is None or type(value) not in _CONTAINERS:
            return value
        return type(value)(convert(part) for part in value)

    return Annotated[Any, PlainValidator(each)]


def unpacked_fields(annotation: Any) -> Mapping[str, Any] | None:
    """Field -> annotation where `**kwargs` is annotated `Unpack[SomeTypedDict]`; else None."""
    args = get_args(annotation)
    if getattr(get_origin(annotation), "__name__", "") != "Unpack" and not hasattr(annotation, "__typing_unpacked_tuple_args__"):
        return None
    return _typed_dict_fields(args[0]) if len(args) == 1 and typing_extensions.is_typeddict(args[0]) else None


# pydantic refuses `typing.TypedDict` before Python 3.12, because that one does not remember everything, and takes
# `typing_extensions.TypedDict`. While an adapter is built, every TypedDict in reach is lent the method that pydantic asks
# first, which hands it an equal class of the kind that it takes.

_building = threading.RLock()
_HOOK = "__get_pydantic_core_schema__"


@contextlib.contextmanager
def _typed_dicts_lent(annotation: Any) -> Iterator[None]:
    refused = _refused_typed_dicts(annotation, set()) if sys.version_info < (3, 12) else []
    for cls in refused:
        setattr(cls, _HOOK, functools.partial(_schema_of_twin, _twin(cls)))
    try:
        yield
    finally:
        for cls in refused:
            delattr(cls, _HOOK)


def _schema_of_twin(twin: Any, _source: Any, handler: Any) -> Any:
    return handler.generate_schema(twin)


def _refused_typed_dicts(annotation: Any, seen: set[int]) -> list[Any]:
    """Every `typing.TypedDict` that the annotation reaches, through generics and the fields of classes."""
    if id(annotation) in seen:
        return []
    seen.add(id(annotation))
    found: list[Any] = []
    if typing_extensions.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        found.append(annotation)
    inner: list[Any] = list(get_args(annotation))
    if isinstance(annotation, type):
        inner += resolve_hints(annotation).values()
    for part in inner:
        found += _refused_typed_dicts(part, seen)
    return found


def _typed_dict_fields(cls: Any) -> dict[str, Any]:
    """Field -> annotation in Required[] or NotRequired[]."""
    fields: dict[str, Any] = {}
    for name, hint in resolve_hints(cls).items():
        if get_origin(hint) in (Required, NotRequired):
            fields[name] = hint
        else:
            fields[name] = Required[hint] if name in cls.__required_keys__ else NotRequired[hint]
    return fields


def _twin(cls: Any) -> Any:
    return typing_extensions.TypedDict(cls.__name__, _typed_dict_fields(cls))  # type: ignore[operator]
