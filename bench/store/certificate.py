"""What has been proven of an evaluation's samples, as it is stored; ``exitbench.bounds`` proves it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from exitbench.models.field_types import Costs, Index, Line, Measured, Number
from exitbench.models.spec import digest
from exitbench.models.stored import Format, Stored, Unreadable
from exitbench.store.identity import Identity

VERSION = 1
"""Version of the bounds; certificates of another one are not read."""


class Method(Stored, frozen=True, kw_only=True):
    """What bounds of one kind, and those before it, prove.

    Attributes:
        name: kind of bounds.
        right: samples for which no image of the ball is classified wrongly.
        last: for each sample the last exit that an image of the ball may take, 0-based.
        seconds: time that it took for all samples.
    """

    name: Line
    right: tuple[Index, ...]
    last: tuple[Index, ...]
    seconds: Measured


class Certificate(Identity, frozen=True, kw_only=True):
    """Lower bounds of the accuracy under any attack, and upper bounds of the cost, of the samples of an evaluation.

    They are of the whole ball, and so of every grid in it: a certificate has no grid, and evaluations on any grid share it.

    Attributes:
        version: of the bounds.
        mmacs: cost of each exit.
        neurons: size of the layers whose inputs were bounded by backward substitution.
        understood: whether the rule's gates have bounds; without, all exits must be right.
        methods: from the cheapest to the tightest; the last one holds what is proven.
        torch, device: version, and where it ran.
    """

    version: Number
    mmacs: Costs
    neurons: Number
    understood: bool
    methods: tuple[Method, ...]
    torch: Line
    device: Literal["cpu", "cuda"]

    def __post_init__(self) -> None:
        if self.grid is not None:
            raise ValueError("a certificate is of the whole ball; it has no `grid`")
        if not self.methods:
            raise ValueError("`methods` is empty")
        for method in self.methods:
            if len(method.last) != self.n or any(k >= len(self.mmacs) for k in method.last):
                raise ValueError(f"`last` of {method.name} is not an exit of each of {self.n} samples")
            if len(set(method.right)) < len(method.right) or any(i >= self.n for i in method.right):
                raise ValueError(f"`right` of {method.name} names a sample twice, or one beyond the {self.n}")

    @property
    def proven(self) -> Method:
        """What is proven by all methods together."""
        return self.methods[-1]

    def accuracy(self, method: Method | None = None) -> float:
        """Return the share of samples that no attack of the threat model can break."""
        return len((method or self.proven).right) / self.n

    def cost(self, method: Method | None = None) -> float:
        """Return the mean mmacs of the last exit that an attacker can drive each sample to."""
        return sum(self.mmacs[k] for k in (method or self.proven).last) / self.n


CERTIFICATE = Format("a certificate", Certificate)


def certificate_key(identity: Identity) -> str:
    """Return the name of the file of an evaluation's certificate: a digest of what identifies the evaluation but its grid."""
    return digest({name: getattr(identity, name) for name in Identity.__struct_fields__ if name != "grid"})


def read_certificate(raw: bytes, path: Path, key: str) -> Certificate:
    """Return the certificate in a file with the content ``raw``.

    Raises:
        Unreadable: It is damaged, of another evaluation, or of other bounds.
    """
    found = CERTIFICATE.read_text(raw, path)
    if certificate_key(found) != key:
        raise Unreadable(f"{path} cannot be read: it is the certificate of another evaluation")
    if found.version != VERSION:
        raise Unreadable(f"{path} cannot be read: its bounds are of version {found.version}, this exitbench has {VERSION}")
    return found


def better(new: Certificate, old: Certificate | None) -> Certificate:
    """Return the certificate that proves more, the new one if they prove the same."""
    if old is None or old.mmacs != new.mmacs:
        return new
    return max(new, old, key=lambda each: (len(each.proven.right), -each.cost()))
