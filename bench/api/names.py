"""Several names in one text."""

from __future__ import annotations


def separated(text: str) -> list[str]:
    """Split ``text`` at commas, but not in parentheses."""
    names, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            names.append("")
        else:
            names[-1] += character
    return [name.strip() for name in names if name.strip()]
