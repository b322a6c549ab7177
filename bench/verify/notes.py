"""What a verification could not prove, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from exitbench.verify.claims import Claims
from exitbench.verify.evidence import is_registered


def notes(claims: Claims) -> Iterator[str]:
    """Yield what of the claims rests on the word of whoever made them."""
    if claims.figures_alone:
        yield (
            f"figures alone, their images are not at hand: {', '.join(claims.figures_alone)}; what they break, the images of "
            "other attacks break as well"
        )
    unproven = Counter(source.attack for source in claims.unproven)
    of = Counter(source.attack for source in claims.sources)
    if whole := [name for name in of if unproven[name] == of[name]]:
        yield f"without any counterexample, so that they prove nothing: {', '.join(whole)}"
    if part := [f"{name} ({unproven[name]} of {of[name]})" for name in of if 0 < unproven[name] < of[name]]:
        yield f"cells without any counterexample, which prove nothing: {', '.join(part)}"
    subject = claims.subject
    if not is_registered(subject):
        yield f"no registered weights of {subject.model} have this SHA-256: the name {subject.training!r} is its author's"
