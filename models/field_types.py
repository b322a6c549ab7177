"""Types of the fields of files that are read: which texts, numbers and lengths are taken, whoever wrote the file."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from msgspec import Meta

_UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
"""Control characters, line separators, and marks that turn the direction of a text or take no room."""

Key = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""A SHA-256 in hex, and with it the name of a file: nothing else can stand in a path of a store."""

SafeName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?\Z")]
"""A name that is part of file names: one that ``exitbench.models.safe_name.safe_name`` leaves as it is."""

Name = Annotated[str, Meta(pattern=rf"\A(?![.+-])[^{_UNPRINTABLE}\s!-*,/:-@\[-^`{{-~]+\Z", max_length=200)]
"""The name of a network or of its weights: letters and digits of any script, ``_``, ``.``, ``+`` and ``-``."""

Line = Annotated[str, Meta(pattern=rf"\A[^{_UNPRINTABLE}]*\Z", max_length=2_000)]
"""One line of text that can be printed as it is."""

Text = Annotated[str, Meta(max_length=100_000)]
"""Any text; whoever prints it makes it printable."""

Rule = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_-]*(:[A-Za-z0-9_.,+=@-]*)*\Z", max_length=100_000)]
"""The written form of an exit policy, in ASCII; ``exitbench.models.policy_text`` parses it."""

Number = Annotated[int, Meta(ge=0, le=2**62)]
"""A count, an index, or the seconds of a clock."""

Count = Annotated[int, Meta(ge=1, le=10**8)]
"""How many of something there are, at least one; no dataset has a hundred million samples."""

Index = Annotated[int, Meta(ge=0, lt=10**8)]
"""Of a sample in its dataset, or of an exit."""

Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""Of a random number generator of torch."""

Radius = Annotated[float, Meta(ge=0, le=1e6)]
"""Of a ball of images with pixels in [0, 1]: no two images of 10^12 pixels are further apart."""

Grid = Annotated[int, Meta(ge=1, le=65535)]
"""Steps of pixel values between 0 and 1: 255 for images of 8 bits."""

Measured = Annotated[float, Meta(ge=0, le=1e15)]
"""A measured time, cost or difference."""

Share = Annotated[float, Meta(ge=0, le=1)]
"""A part of a whole."""

Costs = Annotated[tuple[Measured, ...], Meta(min_length=1, max_length=1000)]
"""A cost for each exit."""

Channels = Annotated[tuple[Share, ...], Meta(min_length=1, max_length=1000)]
"""A number for each channel of an image with pixels in [0, 1]."""

Spec = dict[str, Any]
"""The description of an attack or of settings, as JSON values."""

_WORDS = {
    Key: "a SHA-256 in hex",
    SafeName: "a name of at most 80 ASCII letters, digits, `_`, `.` and `-`",
    Name: "a name of letters, digits, `_`, `.`, `+` and `-`",
    Line: "a line of text without control characters",
    Rule: "an exit rule",
}


def printable(text: str) -> str:
    """Return text with escapes for what no terminal should be given: control characters, line feeds, marks of direction."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def in_words(message: str) -> str:
    """Return the message of msgspec with what these types are in place of their patterns."""
    for kind, words in _WORDS.items():
        message = message.replace(f"`str` matching regex {get_args(kind)[1].pattern!r}", words)
    return message
