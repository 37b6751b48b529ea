"""Descriptions made up at random: each gives a plain stub or an error, and the same one every time."""

from __future__ import annotations

from typing import Any

from hostile_texts import ATTACKS, VALUE_ATTACKS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stub_shape import plain

from prpc.exceptions import DecodeError
from prpc.stubs.codegen import generate

# Anything at all.

texts = st.one_of(
    st.sampled_from([str(attack) for attack in ATTACKS + VALUE_ATTACKS if len(str(attack)) < 200]),
    st.sampled_from(
        [
            "int",
            "list[int]",
            "m.T",
            "m.T.A",
            "m.T()",
            "m.T(x=1)",
            "typing.Any",
            "1",
            "'a'",
            "T",
            "m.T[int]",
            "m.U",
            "Enum",
            "Flag",
            "list",
        ]
    ),
    st.text(max_size=20),
)
names = st.one_of(st.sampled_from(["a", "b", "x", "T", "A", "int", "list", "Any", "class", "__x__", "field", "datetime"]), texts)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


def _dict(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: st.one_of(part, part, part, anything) for key, part in parts.items()})


kinds = st.sampled_from(["POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL", "KEYWORD_ONLY", "VAR_KEYWORD"])
parameters = _dict(name=names, kind=kinds, annotation=texts, default=texts, hidden=st.booleans())
fields = _dict(
    name=names, annotation=texts, default=texts, factory=texts, required=st.booleans(), init=st.booleans(), kw_only=st.booleans()
)
members = _dict(name=names, value=texts)
types = _dict(
    name=st.sampled_from(["m.T", "m.U", "n.T", "m.list"]),
    kind=st.sampled_from(["dataclass", "model", "enum", "namedtuple", "typeddict", "newtype", "alias"]),
    base=st.sampled_from(["Enum", "IntEnum", "m.T", "m.U[int]", None]),
    fields=st.lists(fields, max_size=3),
    members=st.lists(members, max_size=3),
    doc=texts,
    value=texts,
    root=st.none(),
    type_params=st.lists(_dict(name=names, bound=st.none()), max_size=2),
    options=st.dictionaries(st.sampled_from(["frozen", "order"]), st.booleans()),
)
descriptions = _dict(
    func_name=names,
    parameters=st.lists(parameters, max_size=4),
    returns=texts,
    doc=texts,
    types=st.lists(types, max_size=3),
    notes=st.lists(texts, max_size=2),
    idempotent=st.booleans(),
    func_args=st.lists(_dict(name=names, annotation=texts), max_size=2),
    func_kwargs=st.lists(_dict(name=names, default=anything), max_size=2),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.lists(descriptions, max_size=3), anything), texts)
def test_whatever_arrives_there_is_a_stub_or_an_error(answer: Any, queue: str) -> None:
    stub_or_error(answer, queue)


def stub_or_error(answer: Any, queue: str) -> None:
    try:
        source = generate(answer, queue=queue)
    except DecodeError:
        return
    assert plain(source)
    assert generate(answer, queue=queue) == source


# Mostly in order, so that most of it is written.

good_names = st.sampled_from(["a", "b", "x", "T", "list", "Any", "field", "datetime", "cast", "int", "Enum", "name", "value"])
good_annotations = st.sampled_from(
    [
        "int",
        "str",
        "list[int]",
        "typing.Any",
        "m.A",
        "m.B | None",
        "tuple[m.C, ...]",
        "typing.Literal['a', 1]",
        "dict[str, m.D]",
        "datetime.date",
    ]
)
good_values = st.sampled_from(
    [
        "1",
        "'a'",
        "None",
        "(1, 2)",
        "m.C.x",
        "m.C.a",
        "m.A(x=1)",
        "m.B(a=1, x=2)",
        "datetime.date(2020, 1, 1)",
        "frozenset({1})",
        "[1]",
    ]
)
bad = st.sampled_from([attack for attack in ATTACKS if isinstance(attack, str) and len(attack) < 30])


def _mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 60).flatmap(lambda number: good if number else bad)


def _entry(optional: dict[str, st.SearchStrategy[Any]], **needed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {key: _mostly(part) for key, part in needed.items()}, optional={key: _mostly(part) for key, part in optional.items()}
    )


def _unique(entries: st.SearchStrategy[dict[str, Any]], most: int = 4) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(entries, max_size=most, unique_by=lambda entry: str(entry["name"]))


good_fields = _unique(
    _entry(
        {"default": good_values, "kw_only": st.booleans(), "factory": st.just("list")},
        name=good_names,
        annotation=good_annotations,
    )
)
classes = st.tuples(
    *(
        st.fixed_dictionaries(
            {
                "name": st.just(name),
                "kind": st.sampled_from(["dataclass", "namedtuple", "model", "typeddict"]),
                "fields": good_fields,
            },
            optional={"options": st.just({"frozen": True}), "doc": texts, "base": st.sampled_from(["m.A", "m.B"])},
        )
        for name in ("m.A", "m.B")
    ),
    st.fixed_dictionaries(
        {"name": st.just("m.C"), "kind": st.just("enum"), "base": st.sampled_from(["Enum", "IntEnum", "Flag", "str"])}
        | {"members": _unique(_entry({}, name=good_names, value=st.sampled_from(["1", "2", "'a'", "m.A(x=1)"])))}
    ),
    st.fixed_dictionaries({"name": st.just("m.D"), "kind": st.sampled_from(["alias", "newtype"]), "value": good_annotations}),
)
good_parameters = _unique(
    _entry({"default": good_values, "annotation": good_annotations}, name=good_names, kind=st.just("KEYWORD_ONLY"))
)
good_functions = st.fixed_dictionaries(
    {
        "func_name": st.one_of(good_names, texts),
        "parameters": good_parameters,
        "types": classes.map(list),
        "returns": good_annotations,
        "doc": texts,
    }
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(good_functions, min_size=1, max_size=2))
def test_what_is_mostly_in_order_gives_a_stub_or_an_error(answer: Any) -> None:
    stub_or_error(answer, "q")
