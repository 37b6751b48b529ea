"""Ground of the closed grammar: Python's own parser reads a text, and what is not listed is refused.

Nothing in this package runs or imports what a description names. The rules themselves are in annotations.py and
values.py; both give a tree, never the text that arrived.
"""

from __future__ import annotations

import ast
import keyword
import unicodedata
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from prpc.exceptions import DecodeError
from prpc.stubs.tree import Ref

__all__ = ["Known", "deeper", "dotted", "own", "parse", "read_identifier", "refused", "shown"]

MAX_TEXT = 20_000
MAX_DEPTH = 60


@dataclass(frozen=True, slots=True)
class Known:
    """What the types of one description allow a text to say."""

    #: Full name -> number of type parameters.
    arity: Mapping[str, int] = field(default_factory=dict)
    #: Full name of an enum -> its members' names.
    members: Mapping[str, Collection[str]] = field(default_factory=dict)
    #: Full name of a flag enum: its value may be a number, as `Permission(3)`.
    flags: Mapping[str, int] = field(default_factory=dict)
    #: Full names of the classes that a default may build.
    buildable: Collection[str] = ()
    #: Full name of such a class -> its fields, and those of them that must be given.
    fields_of: Callable[[str], tuple[Collection[str], Collection[str]]] = lambda name: ((), ())
    #: Names of the type parameters in scope.
    parameters: Collection[str] = ()


def own(name: str) -> Ref:
    """Reference to a type of the description itself: never to be taken for one that the file imports."""
    return Ref(f"type:{name}")


def read_identifier(name: object, what: str) -> str:
    """A name as Python reads it (NFKC). Raises DecodeError where it cannot be one."""
    if not isinstance(name, str) or len(name) > 200:
        raise refused(f"{what} {str(name)[:40]!r} is no name")
    normal = unicodedata.normalize("NFKC", name)
    if not normal.isidentifier() or keyword.iskeyword(normal) or normal == "__debug__":
        raise refused(f"{what} {name[:40]!r} is no name")
    return normal


def refused(text: str) -> DecodeError:
    """The error of this package: a description that does not keep the form."""
    return DecodeError(text, reason="form")


def parse(text: object, what: str) -> ast.expr:
    """The syntax tree of one printable line. Raises DecodeError where it is none."""
    if not isinstance(text, str) or not text or len(text) > MAX_TEXT:
        raise refused(f"{what} is no text of 1 to {MAX_TEXT} characters")
    if not text.isprintable():
        raise refused(f"{what} {text[:80]!r} holds characters that cannot be printed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning) as exc:
        raise refused(f"{what} {text[:80]!r} cannot be read") from exc


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` as a text; None for any other expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def shown(node: ast.expr) -> str:
    """The expression, shortened, for the text of an error."""
    try:
        return repr(ast.unparse(node)[:80])
    except RecursionError:
        return "(too deep)"


def deeper(depth: int) -> int:
    """One level further in. Raises DecodeError at MAX_DEPTH."""
    if depth >= MAX_DEPTH:
        raise refused(f"an annotation or value is nested more than {MAX_DEPTH} deep")
    return depth + 1
