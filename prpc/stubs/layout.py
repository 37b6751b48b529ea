"""Trees -> lines of at most 88 characters, laid out as `ruff format` and black do, so that both leave them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import cleandoc
from typing import TypeAlias

from prpc.stubs.tree import Atom, Bracket, Either, Entry, Keyword, Member, Node, Ref

__all__ = ["WIDTH", "Spell", "comment", "docstring", "flat", "guarded", "lay_out", "lay_out_default"]

WIDTH = 88

#: Full name -> the name by which the file knows it.
Spell: TypeAlias = Callable[[str], str]


def flat(node: Node, spell: Spell) -> str:
    """The tree on one line, however long."""
    match node:
        case Atom(text):
            return text
        case Ref(target):
            return spell(target)
        case Member(owner, name):
            return f"{spell(owner.target)}.{name}"
        case Keyword(name, value):
            return f"{name}={flat(value, spell)}"
        case Entry(key, value):
            return f"{flat(key, spell)}: {flat(value, spell)}"
        case Either(items):
            return " | ".join(flat(item, spell) for item in items)
    head = spell(node.head.target) if node.head else ""
    inside = ", ".join(flat(item, spell) for item in node.items)
    if not head and node.brackets == "()" and len(node.items) == 1:
        inside += ","
    return head + node.brackets[0] + inside + node.brackets[1]


def lay_out(prefix: str, node: Node, suffix: str, indent: int, spell: Spell) -> list[str]:
    """Lines of `prefix` + tree + `suffix`: one if it fits, else brackets open over several, from the outside in."""
    line = " " * indent + prefix + flat(node, spell) + suffix
    if len(line) <= WIDTH:
        return [line]
    match node:
        case Keyword(name, value):
            return lay_out(f"{prefix}{name}=", value, suffix, indent, spell)
        case Entry(key, value):
            return lay_out(f"{prefix}{flat(key, spell)}: ", value, suffix, indent, spell)
        case Either(items):
            return lay_out(prefix, Bracket(Ref("typing.Union"), "[]", items), suffix, indent, spell)
        case Bracket(head, brackets, items) if items:
            opening = " " * indent + prefix + (spell(head.target) if head else "") + brackets[0]
            comma = "" if head and brackets == "[]" and len(items) == 1 else ","
            inner = [line for item in items for line in lay_out("", item, comma, indent + 4, spell)]
            return [opening, *inner, " " * indent + brackets[1] + suffix]
    return [line]


def lay_out_default(start: str, annotation: Node, default: Node, suffix: str, indent: int, spell: Spell) -> list[str]:
    """Lines of `start` + annotation + ` = ` + default + `suffix`: of the two, the one that makes room is opened."""
    prefix = f"{start}{flat(annotation, spell)} = "
    lines = lay_out(prefix, default, suffix, indent, spell)
    if all(len(line) <= WIDTH for line in lines):
        return lines
    return lay_out(start, annotation, f" = {flat(default, spell)}{suffix}", indent, spell)


def guarded(lines: Sequence[str], *, odd: bool = False) -> list[str]:
    """The lines of one definition; where they cannot be laid out for sure, formatters are told to leave them alone."""
    if odd or any(_may_be_too_long(line) for line in _code(lines)):
        return ["# fmt: off", *lines, "# fmt: on"]
    return list(lines)


def _code(lines: Sequence[str]) -> Iterator[str]:
    """Lines that formatters would break: neither comments nor docstrings."""
    inside = False
    for line in lines:
        opens = not inside and line.lstrip().startswith('"""')
        if not (inside or opens or line.startswith("#")):
            yield line
        inside = (inside or opens) and (not line.endswith('"""') or line.strip() == '"""')


def _may_be_too_long(line: str) -> bool:
    """Formatters count some characters beyond ASCII as two."""
    return len(line) + sum(not unit.isascii() for unit in line) > WIDTH


def comment(text: str) -> str:
    """A comment of one line; what cannot be printed is escaped."""
    return "# " + "".join(unit if unit.isprintable() else ascii(unit)[1:-1] for unit in text).strip()


def docstring(text: str, indent: int) -> tuple[list[str], bool]:
    """Lines of a docstring, and whether formatters would want it otherwise."""
    lines = [_escaped(line.rstrip()) for line in cleandoc(text).strip().split("\n")]
    space = " " * indent
    odd = lines[0].startswith(('"', "\\")) or lines[-1].endswith(("\\", '"')) or len(space + lines[-1]) + 3 > WIDTH
    body = [space + '"""' + lines[0], *(space + line if line else "" for line in lines[1:])]
    body[-1] += '"""'
    return body, odd or len(body[-1]) > WIDTH


def _escaped(line: str) -> str:
    # A lone surrogate stays a text of six characters: Python 3.13 compiles no docstring that holds one.
    line = "".join(f"\\u{ord(unit):04x}" if "\ud800" <= unit <= "\udfff" else unit for unit in line)
    shown = "".join(unit if unit.isprintable() else ascii(unit)[1:-1] for unit in line.replace("\\", "\\\\"))
    return shown.replace('"""', '\\"\\"\\"') if not shown.endswith('"') else shown.replace('"', '\\"')
