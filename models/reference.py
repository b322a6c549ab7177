"""Parses references to factories, with the arguments of a call: ``file.py:MSDNet(Namespace(nBlocks=5), n_classes=10)``."""

from __future__ import annotations

import ast
import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exitbench.models.errors import ForeignModelError

FORM = (
    "arguments are written as in Python, their values numbers, 'texts', True, False, None, lists, tuples, dictionaries, and "
    "Namespace(name=value, ...) for parsed options"
)
_CALL = re.compile(r"(?P<called>.*?:[\w.+-]+)(?P<arguments>\(.*\))\s*", re.DOTALL)
_LONGEST = 1_000


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call, as text; they are literals, so that nothing is executed.

    Attributes:
        text: In one form however it was written: ``(Namespace(nBlocks=5), n_classes=10)``; empty for no call.
    """

    text: str = ""

    def values(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the values by place and by name, made anew: a factory may change them."""
        if not self.text:
            return [], {}
        call = _parsed(self.text)
        return _values(call.args), _named(call.keywords)


NO_ARGUMENTS = Arguments()


def split_call(reference: str) -> tuple[str, Arguments]:
    """Return what a reference calls, and the arguments that it is called with.

    Raises:
        ForeignModelError: If the arguments cannot be parsed, or are no literals.
    """
    found = _CALL.fullmatch(reference)
    if found is None:
        return reference, NO_ARGUMENTS
    call = _parsed(found["arguments"])
    _values(call.args), _named(call.keywords)
    text = ", ".join([*map(ast.unparse, call.args), *(f"{each.arg}={ast.unparse(each.value)}" for each in call.keywords)])
    return found["called"], Arguments(f"({text})")


def without_call(reference: str) -> tuple[str, str]:
    """Return what a reference calls, and the text of its arguments: in one form, or as it is where they are none."""
    try:
        called, arguments = split_call(reference)
    except ForeignModelError:
        called, _, rest = reference.partition("(")
        return called, f"({rest}"
    return called, arguments.text


def _parsed(text: str) -> ast.Call:
    if len(text) > _LONGEST:
        raise ForeignModelError(f"the factory's arguments are {len(text):,} characters long; {_LONGEST:,} are the most")
    try:
        call = ast.parse(f"f{text}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise ForeignModelError(f"the factory's arguments {_short(text)} cannot be parsed ({reason}); {FORM}") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "f":
        raise ForeignModelError(f"the factory's arguments {_short(text)} are no single call; {FORM}")
    return call


def _value(node: ast.expr) -> Any:
    """Return the value of a literal.

    Raises:
        ForeignModelError: If it is anything else.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Namespace", "dict") and not node.args:
        values = _named(node.keywords)
        return Namespace(**values) if node.func.id == "Namespace" else values
    if isinstance(node, ast.List):
        return _values(node.elts)
    if isinstance(node, ast.Tuple):
        return tuple(_values(node.elts))
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = _values([key for key in node.keys if key is not None])
        return dict(zip(keys, _values(node.values), strict=True))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ForeignModelError(f"{_short(ast.unparse(node))} is no value that a factory can be given here; {FORM}") from error


def _values(nodes: Sequence[ast.expr]) -> list[Any]:
    return [_value(node) for node in nodes]


def _named(keywords: Sequence[ast.keyword]) -> dict[str, Any]:
    if any(each.arg is None for each in keywords):
        raise ForeignModelError(f"** is not taken; {FORM}")
    found: dict[str, Any] = {}
    for each in keywords:
        if each.arg in found:
            raise ForeignModelError(f"the argument {each.arg!r} is given twice")
        found[str(each.arg)] = _value(each.value)
    return found


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
