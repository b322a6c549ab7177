"""What readers are told of weights: how they were trained and against what; kept on their card, as ``details["about"]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from exitbench.models.weights import WeightsCard


class AboutWeights(msgspec.Struct, frozen=True, omit_defaults=True):
    """What readers are told of weights; an empty text is not known.

    Attributes:
        title: Name of the training for readers, such as ``max-average``.
        defence: The training in a few words, and what it defends against.
        paper: Where the defence is from.
        link: Address of that paper.
        extra_data: Images beyond the dataset's training split; ``none`` where there were none.
        parameters: Number of trained parameters of the network; None where it was not counted.
    """

    title: str = ""
    defence: str = ""
    paper: str = ""
    link: str = ""
    extra_data: str = ""
    parameters: int | None = None


def about_weights(card: WeightsCard) -> AboutWeights:
    """Return what a card says for readers; cards from before it was kept say nothing."""
    try:
        return msgspec.convert(card.details.get("about", {}), AboutWeights)
    except msgspec.ValidationError:
        return AboutWeights()
