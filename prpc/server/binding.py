"""Arguments from the wire against a function's signature: what fits is converted, what does not is explained."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prpc.conversion import ConversionError, converter_for, resolve_hints, short_repr, unpacked_fields
from prpc.exceptions import BadArgumentsError
from prpc.server.intake import Intake, intake_of
from prpc.stubs.streams import StreamHint, stream_hint

__all__ = ["Binder"]

_Parameter = inspect.Parameter
_Convert = Callable[[Any], Any]
_BY_PLACE = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (_Parameter.POSITIONAL_OR_KEYWORD, _Parameter.KEYWORD_ONLY)
#: Most characters of a caller's word that are looked at and shown: the search for similar ones takes time and room for each.
_MOST_SHOWN = 200


class Binder:
    """Binds and converts the arguments of one function.

    Defaults are not filled in: the function's own apply when it runs. A function whose signature Python does not know
    (some built-in ones) takes everything unchanged.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):
            any_args = _Parameter("args", _Parameter.VAR_POSITIONAL)
            parameters = [any_args, _Parameter("kwargs", _Parameter.VAR_KEYWORD)]
        hints = resolve_hints(function)
        #: Parameter that is fed from a stream -> whether it wants an async iterator.
        self.feeds = {
            parameter.name: found.is_async
            for parameter in parameters
            if parameter.kind in (*_BY_PLACE, *_BY_NAME) and (found := stream_hint(hints.get(parameter.name)))
        }
        by_place = [p for p in parameters if p.kind in _BY_PLACE]
        #: Name and converter of each parameter that can be given by place, and the types of values that pass it as they are.
        self._places = [(p.name, *_place(_converter(p, hints))) for p in by_place]
        #: Parameter that can be given by name -> its converter.
        self._names = {p.name: _converter(p, hints) for p in parameters if p.kind in _BY_NAME}
        self._place_of = {p.name: index for index, p in enumerate(by_place)}
        self._positional_only = {p.name for p in parameters if p.kind is _Parameter.POSITIONAL_ONLY}
        self._required_places = sum(p.default is _Parameter.empty for p in by_place)
        self._required_names = [p.name for p in parameters if p.kind is _Parameter.KEYWORD_ONLY and p.default is _Parameter.empty]
        self._more_args = _more(parameters, _Parameter.VAR_POSITIONAL, hints)
        self._more_kwargs = _more(parameters, _Parameter.VAR_KEYWORD, hints)
        self._unpacked = unpacked_fields(hints.get(self._more_kwargs[0])) if self._more_kwargs else None

    def check_stream(self, argument: int | str) -> None:
        """Raise BadArgumentsError where the argument, by its place or name, is not one that the function reads as a stream."""
        name = argument if isinstance(argument, str) else next((name for name, _, _ in self._places[argument:]), None)
        if name not in self.feeds:
            shown = f"argument {argument}" if name is None else f"argument {name[:_MOST_SHOWN]!r}"
            text = f"{shown} is sent as a stream, which only a parameter annotated Iterator[...] or AsyncIterator[...] takes"
            raise BadArgumentsError(f"{self._name}(): {text}; send a list", function=self._name, parameter=name)

    def bind(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, strict: bool = True
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments to call the function with. Raises BadArgumentsError naming the function and the parameter.

        Without `strict`, a value that does not fit its annotation is handed on as it is; names and number count all the same.
        """
        count = len(args)
        if args:
            args = self._positional(args, strict)
        if kwargs:
            kwargs = self._by_name(count, kwargs, strict)
        if count < self._required_places or self._required_names or self._unpacked is not None:
            self._check_missing(count, kwargs)
        return args, kwargs

    def _positional(self, args: Sequence[Any], strict: bool) -> Sequence[Any]:
        places = self._places
        if len(args) > len(places) and self._more_args is None:
            most = "at most one argument" if len(places) == 1 else f"at most {len(places) or 'no'} arguments"
            raise self._error(f"takes {most} by place, got {len(args)}".replace("at most no ", "no "))
        bound = list(args)
        for index, ((name, convert, exact), value) in enumerate(zip(places, args, strict=False)):
            if type(value) not in exact and convert is not None:
                bound[index] = self._convert(name, convert, value, strict)
        name, convert = self._more_args or ("", None)
        if convert is not None:
            for index in range(len(places), len(bound)):
                bound[index] = self._convert(f"*{name}[{index - len(places)}]", convert, bound[index], strict)
        return bound

    def _by_name(self, count: int, kwargs: Mapping[str, Any], strict: bool) -> dict[str, Any]:
        bound: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in self._names:
                if self._place_of.get(name, count) < count:
                    raise self._error(f"got the argument {name!r} twice: by place and by name", name)
                convert = self._names[name]
            else:
                convert = self._further(name)
            bound[name] = value if convert is None else self._convert(name, convert, value, strict)
        return bound

    def _further(self, name: Any) -> _Convert | None:
        """The converter of an argument that only `**kwargs` can take."""
        if not isinstance(name, str):
            raise self._error(f"got an argument whose name is no text: {name!r}")
        if self._more_kwargs is None:
            name = name[:_MOST_SHOWN]
            if name in self._positional_only:
                raise self._error(f"takes the argument {name!r} by place only", name)
            raise self._error(f"has no argument {name!r}" + self._nearest(name, self._names), name)
        if self._unpacked is not None:
            if name not in self._unpacked:
                name = name[:_MOST_SHOWN]
                raise self._error(f"has no argument {name!r}" + self._nearest(name, {**self._names, **self._unpacked}), name)
            return _unwrapped(self._unpacked[name])
        return self._more_kwargs[1]

    def _check_missing(self, count: int, kwargs: Mapping[str, Any]) -> None:
        places = [name for name, _, _ in self._places[count : self._required_places]]
        missing = [name for name in places if name not in kwargs or name in self._positional_only]
        missing += [name for name in self._required_names if name not in kwargs]
        missing += [n for n, hint in (self._unpacked or {}).items() if n not in kwargs and _is_required(hint)]
        if missing:
            word = "argument" if len(missing) == 1 else "arguments"
            raise self._error(f"misses the {word} " + ", ".join(repr(name) for name in missing), missing[0])

    def _convert(self, name: str, convert: _Convert, value: Any, strict: bool) -> Any:
        try:
            return convert(value)
        except ConversionError as exc:
            self._misfit(name, exc, strict)
            return value

    def _misfit(self, name: str, exc: ConversionError, strict: bool) -> None:
        """Tell that an argument does not fit, unless it is to be handed on as it is."""
        if strict:
            name = name[:_MOST_SHOWN]
            text = f"{self._name}(): argument {name!r} {exc}"
            raise BadArgumentsError(text, function=self._name, parameter=name) from exc

    def _nearest(self, name: str, known: Mapping[str, Any]) -> str:
        nearest = difflib.get_close_matches(name, known, n=1)
        if nearest:
            return f"; did you mean {nearest[0]!r}?"
        return "; it has " + ", ".join(repr(known_name) for known_name in known) if known else "; it takes none by name"

    def _error(self, text: str, parameter: str | None = None) -> BadArgumentsError:
        return BadArgumentsError(f"{self._name}() {text}", function=self._name, parameter=parameter)


def _converter(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> _Convert | None:
    annotation = hints.get(parameter.name, _Parameter.empty)
    streamed = stream_hint(annotation)
    convert = converter_for(annotation) if streamed is None else _stream_converter(parameter.name, streamed)
    if convert is None or not (parameter.default is None or (streamed is not None and streamed.optional)):
        return convert
    return _or_none(convert)  # `def f(x: int = None)`: a caller may say None, as it may locally


def _place(convert: _Convert | None) -> tuple[_Convert | None, frozenset[type]]:
    """The converter, and the types of which it gives back every value as it is: asking it would cost as much as binding does."""
    return convert, getattr(convert, "exact", frozenset())


def _stream_converter(name: str, streamed: StreamHint) -> _Convert:
    """For a parameter that is fed from a stream; a caller may also send all items at once, as a list."""
    item = converter_for(streamed.item)

    def convert(value: Any) -> Any:
        if isinstance(value, Intake):
            value.parameter, value.convert = name, item
            return value
        if type(value) not in (list, tuple):
            raise ConversionError(f"must be a stream or a list, not {short_repr(value)}")
        return intake_of(value if item is None else [item(part) for part in value], is_async=streamed.is_async)

    return convert


def _or_none(convert: _Convert) -> _Convert:
    def convert_unless_none(value: Any) -> Any:
        return None if value is None else convert(value)

    return convert_unless_none


def _more(parameters: Sequence[inspect.Parameter], kind: Any, hints: Mapping[str, Any]) -> tuple[str, _Convert | None] | None:
    """Name and converter of `*args` or `**kwargs`; None where the function has none."""
    for parameter in parameters:
        if parameter.kind is kind:
            return parameter.name, converter_for(hints.get(parameter.name, _Parameter.empty))
    return None


def _unwrapped(hint: Any) -> _Convert | None:
    """The converter of a TypedDict's field."""
    return converter_for(hint.__args__[0])


def _is_required(hint: Any) -> bool:
    return getattr(hint.__origin__, "_name", "") == "Required"
