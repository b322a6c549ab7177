"""The folded search model computes the same function as the plain model."""

import pytest
import torch
from torch import nn

from exitbench.models.folded import folded
from exitbench.models.registry import model_card, model_names


def _settled(net: nn.Module) -> nn.Module:
    """``net`` with batch statistics that are not those of a fresh layer, in evaluation mode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


@pytest.mark.parametrize("name", ["rdi_resnet38", "resnet38", "rdi_mobilenetv2", "rdi_smallcnn"])
def test_the_twin_has_the_logits_and_gradients_of_the_model(name: str) -> None:
    assert name in model_names()
    torch.manual_seed(0)
    card = model_card(name)
    net = _settled(card.build()).double()
    search_model = folded(net)
    x = torch.rand(3, *card.input_shape, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(search_model(x), net(x), rtol=1e-9, atol=1e-9)
    (expected,) = torch.autograd.grad(net(x).square().sum(), x)
    (found,) = torch.autograd.grad(search_model(x).square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_no_batch_normalisation_is_left_and_the_model_keeps_its_own() -> None:
    net = model_card("rdi_resnet38").build().eval()
    before = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert before > 0
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded(net).modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == before


class _NormAndReLU(nn.BatchNorm2d):
    """As timm's: it activates as well."""

    def forward(self, x):
        return super().forward(x).relu()


class _Standardised(nn.Conv2d):
    """Its weights have mean 0 whatever they are."""

    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)


class _Padded(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(nn.functional.pad(x, (1, 1, 1, 1)), weight, bias)


class _Renamed(nn.BatchNorm2d):
    """Computes nothing else."""


@pytest.mark.parametrize(
    ("conv", "norm", "is_folded"),
    [
        (nn.Conv2d, _NormAndReLU, False),
        (_Standardised, nn.BatchNorm2d, False),
        (_Padded, nn.BatchNorm2d, False),
        (nn.Conv2d, _Renamed, True),
    ],
)
def test_a_layer_that_computes_more_than_its_class_says_is_not_folded(conv, norm, is_folded):
    net = _settled(nn.Sequential(conv(3, 4, 3), norm(4)))
    x = torch.rand(2, 3, 6, 6)
    search_model = folded(net)
    torch.testing.assert_close(search_model(x), net(x))
    assert isinstance(search_model[1], nn.Identity) == is_folded
