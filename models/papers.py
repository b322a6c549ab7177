"""The papers that the architectures and defences are from, in short; the facts are those of ``exitbench.models.citations``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from exitbench.models.citations import citations

_MOST_AUTHORS = 8
"""Authors who are named; of more, the first is."""


@dataclass(frozen=True)
class Paper:
    """A paper.

    Attributes:
        authors: Family names, as ``Hu, Chen, Wang & Wang``.
        title: Its title.
        venue: Short name of the conference.
        year: Year of the conference.
        link: Address of its page.
    """

    authors: str
    title: str
    venue: str
    year: int
    link: str

    @property
    def short(self) -> str:
        """The paper in a few words, as ``Hu et al., ICLR 2020``."""
        first, *others = self.authors.replace(" & ", ", ").split(", ")
        return f"{first}{' et al.' if others else ''}, {self.venue} {self.year}"

    def __str__(self) -> str:
        return f'{self.authors}, "{self.title}", {self.venue} {self.year}'


def _paper(key: str) -> Paper:
    """Return a paper by the key of its citation."""
    found = citations()[key]
    families = [name[1:-1] if name.endswith("}") else name for name in map(_family, found.authors)]
    *others, last = families
    authors = f"{', '.join(others)} & {last}" if others else last
    venue = re.search(r"\((\w+)\)$", found.venue)
    return Paper(
        f"{families[0]} et al." if len(families) > _MOST_AUTHORS else authors,
        found.title,
        venue[1] if venue else found.venue,
        found.year,
        found.url,
    )


def _family(name: str) -> str:
    """Return the family name of an author, braces included."""
    return re.sub(r"^.*? (?=\{)|^.* (?=[^ {}]+$)", "", name)


RDI = _paper("hu2020triple")
RESNET = _paper("he2016deep")
MOBILENET_V2 = _paper("sandler2018mobilenetv2")
TRADES = _paper("zhang2019theoretically")
MSDNET = _paper("huang2018multi")
SDN = _paper("kaya2019shallow")
VGG = _paper("simonyan2015very")
BRANCHYNET = _paper("teerapittayanon2016branchynet")
VIT = _paper("dosovitskiy2021image")
NEO_KD = _paper("ham2023neokd")
