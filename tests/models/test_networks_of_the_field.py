"""The field's multi-exit networks: where their exits stand, and what they cost, against what is published."""

import math

import pytest
import torch
from torch import nn

from exitbench.attacks.adaptive import Adaptive
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.models.cost import measure_costs
from exitbench.models.msdnet import build_msdnet
from exitbench.models.policies import EntropyPolicy, deployed_logits
from exitbench.models.registry import model_card
from exitbench.models.sdn import SHARES
from exitbench.runner.passes import counted

AUTHORS_MSDNET = (15_140_452, 25_505_992, 37_095_980, 46_331_024, 57_335_540, 66_960_728, 75_937_724)
"""Operations up to each exit of the anytime network of 7 exits, as the counter in the authors' PyTorch code gives them for
CIFAR-100."""


def test_msdnet_costs_what_the_authors_counter_says():
    """Their counter adds one operation per output of a ReLU and of a linear layer's bias, and four per pooled number."""
    net = build_msdnet([4] + [2] * 6, n_classes=100).eval()
    extra: list[list[int]] = []

    def count(module, _inputs, output):
        factor = 4 if isinstance(module, nn.AdaptiveAvgPool2d) else 1
        extra[-1].append(factor * output.numel())

    for module in net.modules():
        if isinstance(module, (nn.ReLU, nn.Linear, nn.AdaptiveAvgPool2d)):
            module.register_forward_hook(count)
    features = torch.zeros(1, 3, 32, 32)
    so_far = []
    for stage, head in zip(net.stages, net.heads, strict=True):
        extra.append([])
        features = stage(features)
        head(features)
        so_far.append(sum(map(sum, extra)))
    counted = [round(1e6 * mmacs) for mmacs in measure_costs(net, (3, 32, 32)).mmacs]
    assert [macs + more for macs, more in zip(counted, so_far, strict=True)] == list(AUTHORS_MSDNET)


@pytest.mark.parametrize("name", ["sdn_resnet56", "sdn_vgg16"])
def test_internal_classifiers_stand_at_the_papers_shares_of_the_cost(name):
    net = model_card(name).build().eval()
    costs = measure_costs(net, (3, 32, 32)).mmacs
    for share, cost in zip(SHARES, costs[:-1], strict=True):
        assert math.isclose(cost / costs[-1], share, abs_tol=0.04)


@pytest.mark.parametrize("name", ["msdnet", "sdn_resnet56", "branchynet_lenet", "vit_exits"])
def test_inputs_that_leave_early_are_not_computed_further(name):
    card = model_card(name)
    net = card.build().eval()
    seen = []
    for stage in net.stages:
        first = next(module for module in stage.modules() if not list(module.children()))
        first.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    x = torch.rand(8, *card.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = net(x)
        middle = torch.softmax(logits[0], -1)
        entropies = -(middle * torch.log(middle + 1e-5)).sum(-1).sort().values
        policy = EntropyPolicy((float(entropies[3:5].mean()), *[-math.inf] * (net.n_exits - 2)))
        seen.clear()
        found = net.deployed(x, policy)
    torch.testing.assert_close(found, deployed_logits(logits, policy)[0])
    assert seen[0] == 8
    assert seen[1:] == [4] * (net.n_exits - 1)


@pytest.mark.parametrize("name", ["msdnet", "sdn_resnet56", "sdn_vgg16", "branchynet_lenet", "branchynet_resnet", "vit_exits"])
def test_attacks_run_on_network_and_search_model_and_their_passes_are_counted(name):
    card = model_card(name)
    net = card.build().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, *card.input_shape, generator=generator), torch.tensor([0, 1])
    ball, policy = ThreatModel("Linf", 8 / 255), EntropyPolicy((2.0,) * (net.n_exits - 1))
    for model in (net, net.search_model()):
        for attack in (PGD(Objective(CE(), Mean()), ball, 2, 2 / 255), Adaptive(ball, policy, budget=2)):
            with counted(model) as passes:
                x_adv = attack(model, x, y, noise=Noise(0, (0, 1)))
            assert passes.forwards >= passes.backwards >= (4 if isinstance(attack, PGD) else 0) and passes.forwards > 0
            assert ball.distance(x_adv, x).max() <= ball.eps + 1e-6
