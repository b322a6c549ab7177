"""The papers that the architectures and defences are from."""

from __future__ import annotations

from dataclasses import dataclass


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


RDI = Paper(
    "Hu, Chen, Wang & Wang",
    "Triple Wins: Boosting Accuracy, Robustness and Efficiency Together by Enabling Input-Adaptive Inference",
    "ICLR",
    2020,
    "https://openreview.net/forum?id=rJgzzJHtDB",
)
RESNET = Paper(
    "He, Zhang, Ren & Sun", "Deep Residual Learning for Image Recognition", "CVPR", 2016, "https://arxiv.org/abs/1512.03385"
)
MOBILENET_V2 = Paper(
    "Sandler, Howard, Zhu, Zhmoginov & Chen",
    "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    "CVPR",
    2018,
    "https://arxiv.org/abs/1801.04381",
)
TRADES = Paper(
    "Zhang, Yu, Jiao, Xing, El Ghaoui & Jordan",
    "Theoretically Principled Trade-off between Robustness and Accuracy",
    "ICML",
    2019,
    "https://arxiv.org/abs/1901.08573",
)
MSDNET = Paper(
    "Huang, Chen, Li, Wu, van der Maaten & Weinberger",
    "Multi-Scale Dense Networks for Resource Efficient Image Classification",
    "ICLR",
    2018,
    "https://arxiv.org/abs/1703.09844",
)
SDN = Paper(
    "Kaya, Hong & Dumitras",
    "Shallow-Deep Networks: Understanding and Mitigating Network Overthinking",
    "ICML",
    2019,
    "https://arxiv.org/abs/1810.07052",
)
VGG = Paper(
    "Simonyan & Zisserman",
    "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    "ICLR",
    2015,
    "https://arxiv.org/abs/1409.1556",
)
BRANCHYNET = Paper(
    "Teerapittayanon, McDanel & Kung",
    "BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks",
    "ICPR",
    2016,
    "https://arxiv.org/abs/1709.01686",
)
VIT = Paper(
    "Dosovitskiy et al.",
    "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    "ICLR",
    2021,
    "https://arxiv.org/abs/2010.11929",
)
NEO_KD = Paper(
    "Ham, Park, Han & Moon",
    "NEO-KD: Knowledge-Distillation-Based Adversarial Training for Robust Multi-Exit Neural Networks",
    "NeurIPS",
    2023,
    "https://arxiv.org/abs/2311.00428",
)
