"""What the trust checks measured of an evaluation, as it is stored; ``exitbench.checks`` measures and judges it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from exitbench.models.field_types import Count, Index, Key, Line, Measured, Number, Radius, Seed, Share, Spec
from exitbench.models.spec import digest
from exitbench.models.stored import Format, Stored, Unreadable

Indices = tuple[Index, ...]
"""Indices of samples in the dataset."""


class Outputs(Stored, frozen=True, kw_only=True):
    """Differences between forwards of the same images, and each exit's likeness to a distribution.

    Attributes:
        repeated: largest difference of logits between two forwards of the same batch, relative to the exit's spread.
        batched: the same for the images in other batches: reversed, in halves; from version 2 on also shuffled, by one, two and
            three, and beside images that are surer or less sure.
        elsewhere: Largest difference between two forwards of the same batch at random starts of the ball; None before version 4,
            as the next two.
        nearby: Difference between images on the 8-bit grid and the same moved by at most 1e-3 in every pixel.
        afresh: Difference, on clean images and at random starts, between the network and a copy from before its first image;
            None also where there is no such copy.
        probabilities: 0-based exits whose outputs look like probabilities on every sample.
        log_probabilities: 0-based exits whose outputs look like log-probabilities.
    """

    repeated: Measured
    batched: Measured
    probabilities: Indices
    log_probabilities: Indices
    elsewhere: Measured | None = None
    nearby: Measured | None = None
    afresh: Measured | None = None


class Gradients(Stored, frozen=True, kw_only=True):
    """Gradients at the random starts that the attacks begin from.

    Attributes:
        zero: for each exit the share of the samples that it has right whose gradient of the evaluation's loss is zero or not
            finite; None where it has none at all.
        zero_margin: the same of the margin's gradient.
        saturated: for each gate the share of saturated samples; None where the policy has no threshold.
        reachable: 0-based exits that the policy can take.
        right: for each exit the number of samples that it has right; None in versions 1 and 2, as ``gated``.
        gated: number of samples that the gates were measured on.
        looks: number of times that a comparison could be made as the samples grew.
    """

    zero: tuple[Share | None, ...]
    zero_margin: tuple[Share | None, ...]
    saturated: tuple[Share | None, ...]
    reachable: Indices
    right: tuple[Annotated[int, Meta(ge=0)], ...] | None = None
    gated: Annotated[int, Meta(ge=0)] | None = None
    looks: Annotated[int, Meta(ge=1)] = 1

    def __post_init__(self) -> None:
        if not len(self.zero) == len(self.zero_margin) == len(self.saturated) + 1:
            raise ValueError("`zero`, `zero_margin` and `saturated` are of different numbers of exits")
        if (self.right is None) != (self.gated is None) or (self.right is not None and len(self.right) != len(self.zero)):
            raise ValueError("`right` and `gated` do not fit `zero`")
        if any(not 0 <= k < len(self.zero) for k in self.reachable):
            raise ValueError(f"`reachable` names an exit outside 0..{len(self.zero) - 1}")


class AscentPath(Stored, frozen=True, kw_only=True):
    """What became of the samples that are right when clean, along the path of the evaluation's own gradient attack.

    Attributes:
        keep: which iterate the attack returns.
        steps: that it takes.
        on_path: samples broken by some iterate.
        returned: samples broken by the iterate that is returned.
        late: samples not broken, whose best value was reached in the last steps.
        rising: samples not broken, whose value was still rising in the last steps.
        switches: share of steps at which the exit taken changes.
        right: all samples that were looked at, which are right when clean; None for those of the trust result, as in versions 1
            and 2.
        looks: number of times that a comparison could be made as the samples grew.
    """

    keep: Literal["best", "last"]
    steps: Count
    on_path: Indices
    returned: Indices
    late: Indices
    rising: Indices
    switches: Share
    right: Indices | None = None
    looks: Annotated[int, Meta(ge=1)] = 1


class AtRadius(Stored, frozen=True, kw_only=True):
    """Samples ``broken`` by some iterate of an ascent in the ball of radius ``eps``."""

    eps: Radius
    broken: Indices


class Radii(Stored, frozen=True, kw_only=True):
    """Samples broken at eps/2, eps and 2 eps (``radii``), and in the ball that holds the whole box (``unbounded``).

    Attributes:
        radii, unbounded: see above.
        right, looks: see ``AscentPath``.
    """

    radii: Annotated[tuple[AtRadius, ...], Meta(min_length=1)]
    unbounded: AtRadius
    right: Indices | None = None
    looks: Annotated[int, Meta(ge=1)] = 1


class Controls(Stored, frozen=True, kw_only=True):
    """Samples, all right when clean, that attacks without gradients break.

    Attributes:
        noise: broken by random points.
        search: broken by a random search.
        right: all samples that were looked at; None for those of the trust result, as in version 1 and without gradients.
        gradients: broken by gradient ascents; None as ``right``.
        looks: number of times that a comparison could be made as the samples grew.
    """

    noise: Indices
    search: Indices
    right: Indices | None = None
    gradients: Indices | None = None
    looks: Count = 1


class Hidden(Stored, frozen=True, kw_only=True):
    """Samples, all right when clean, that the evaluation's ascents leave, and what breaks them without gradients.

    Attributes:
        right: all samples that were looked at.
        left: those that the ascents leave; those below are some of these.
        searched: broken by random points or random searches.
        rounded: broken by an ascent's last image, rounded to the 8-bit grid.
        transfer: broken by images made on ``sources``.
        behind: some exit, taken or not, is wrong on an ascent's last image.
        opened: of these, broken by tiny changes of that image.
        ascents: of those broken in any of these ways, those that further ascents break as well.
        sources: digests of the networks' weights.
        changes: number of tiny changes of each sample, the least of all batches; 0 where there were none.
        looks: number of times that a comparison could be made as the samples grew.
    """

    right: Indices
    left: Indices
    searched: Indices
    rounded: Indices
    transfer: Indices
    behind: Indices
    opened: Indices
    ascents: Indices
    sources: tuple[Key, ...]
    changes: Number
    looks: Count = 1

    def __post_init__(self) -> None:
        if not set(self.left) <= set(self.right) or not set(self.opened) <= set(self.behind):
            raise ValueError("`left` or `opened` names samples that it cannot be of")
        for name in ("searched", "rounded", "transfer", "behind", "ascents"):
            if not set(getattr(self, name)) <= set(self.left):
                raise ValueError(f"`{name}` names samples that it cannot be of")


class SearchModelDifference(Stored, frozen=True, kw_only=True):
    """The search model against the plain model, on the clean images and on attacked ones.

    Attributes:
        difference: of logits, relative to their spread.
        changed_clean, changed_adversarial: deployed decisions that differ, of ``samples`` each.
        samples: images of each kind.
        precision: of the search model.
    """

    difference: Measured
    changed_clean: Number
    changed_adversarial: Number
    samples: Count
    precision: Literal["fp32", "bf16"] = "fp32"


class TrustProvenance(Stored, frozen=True, kw_only=True):
    """Seconds that the checks took, and the device and versions that they ran on."""

    seconds: Measured
    device: Line
    torch: Line
    python: Line


class TrustResult(Stored, frozen=True, kw_only=True):
    """Everything that the trust checks measured.

    Attributes:
        key: content address.
        version: of the measurements.
        seed: of their noise.
        settings: of the evaluation's gradient attacks, as JSON values.
        samples: that were probed.
        right: those of them that are right when clean.
        outputs, gradients: see there.
        path: None where no exit has a gradient, or no sample is right.
        soft_rule: samples that the deployed rule's own objective breaks of those that the loss leaves; None as ``path``.
        radii: None as ``path``.
        controls: None where no sample is right.
        search_model: see ``SearchModelDifference``.
        hidden: None before version 5, and as ``path``.
        provenance: None in results of before it was kept.
        digest: of everything but the provenance (``sealed``); None in results of before it was kept.
    """

    key: Key
    version: Number
    seed: Seed
    settings: Spec
    samples: Indices
    right: Indices
    outputs: Outputs
    gradients: Gradients
    path: AscentPath | None
    soft_rule: Indices | None
    radii: Radii | None
    controls: Controls | None
    search_model: SearchModelDifference = msgspec.field(name="twin")
    hidden: Hidden | None = None
    provenance: TrustProvenance | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) != (self.radii is None) or (self.path is None) != (self.soft_rule is None):
            raise ValueError("`path`, `soft_rule` and `radii` are measured together, or none of them is")
        if self.path is not None and not self.right:
            raise ValueError("`path` is of samples that are right, and none is")
        for name, some, known in self._parts():
            if not set(some) <= set(known):
                raise ValueError(f"`{name}` names samples that it cannot be of")

    def _parts(self) -> Iterator[tuple[str, Indices, Indices]]:
        """Yield names of lists of samples, the samples, and those that they are some of."""
        yield "right", self.right, self.samples
        yield "soft_rule", self.soft_rule or (), self.right
        for each in (*self.radii.radii, self.radii.unbounded) if self.radii is not None else ():
            yield "radii", each.broken, self._looked_at(self.radii)
        for name in ("on_path", "returned", "late", "rising"):
            yield name, getattr(self.path, name, ()), self._looked_at(self.path)
        if (controls := self.controls) is not None:
            yield "controls", (*controls.noise, *controls.search, *(controls.gradients or ())), self._looked_at(controls)

    def _looked_at(self, numbers: AscentPath | Radii | Controls | None) -> Indices:
        """Return the samples that a measurement is of, which may have grown beyond those of the first slice."""
        return self.right if numbers is None or numbers.right is None else numbers.right


TRUST_RESULT = Format("a trust result", TrustResult)


def sealed(result: TrustResult) -> TrustResult:
    """Return the result with the digest of all of it but where and how fast it was measured."""
    bare = msgspec.structs.replace(result, digest=None, provenance=None)
    return msgspec.structs.replace(result, digest=digest(TRUST_RESULT.content(bare)))


def read_trust(raw: bytes, path: Path, key: str) -> TrustResult:
    """Return the result in a file with the content ``raw``.

    Raises:
        Unreadable: It is damaged, of another key, or not what its digest says.
    """
    result = TRUST_RESULT.read_text(raw, path)
    if result.key != key:
        raise Unreadable(f"{path} cannot be read: it is the result of another probe")
    if result.digest is not None and sealed(result).digest != result.digest:
        raise Unreadable(f"{path} cannot be read: its content is not that of its digest")
    return result
