"""Networks of two and three classes: what does not apply is skipped with the reason, and everything else is run to its end."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import exitbench
from exitbench.attacks.autoattack import AutoAttack, run_autoattack
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.presets import expand, matrix_names
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import settings_for
from exitbench.models.policies import FixedExit
from exitbench.models.spec import describe
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store

BALL = ThreatModel("Linf", 0.1)


class Net(nn.Module):
    """Two exits, linear in the image: an attack within the ball moves the margin of two classes by a known length."""

    def __init__(self, n_classes, side=4):
        super().__init__()
        torch.manual_seed(0)
        self.exit_1, self.exit_2 = nn.Linear(side * side, n_classes), nn.Linear(side * side, n_classes)

    def forward(self, x):
        return [self.exit_1(x.flatten(1)), self.exit_2(x.flatten(1))]


def settings(loss="ce"):
    method = {"method": "apgd"} if loss == "dlr-targeted" else {}
    return settings_for(BALL, {"loss": loss, "steps": 3, **method}, _Usual())


class _Usual:
    steps, step_ratio = 3, 0.25


def deployment(n_classes):
    return Deployment(2, FixedExit(2), (1.0, 2.0), n_classes)


def test_the_keys_of_ordinary_autoattack_do_not_change():
    for n_classes in (None, 4, 10):
        (attack,) = expand(["autoattack"], deployment(n_classes), settings())[0].values()
        assert describe(attack) == describe(AutoAttack(BALL, FixedExit(2))) and attack.summary == "standard"


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_matrix_is_whole_and_autoattack_goes_by_its_own_name(n_classes):
    attacks, skipped = expand(["all"], deployment(n_classes), settings())
    assert set(attacks) == matrix_names(2) and not skipped
    assert attacks["autoattack"].summary == "few-classes: apgd-ce, fab, square"
    (worst,) = expand(["worst"], deployment(n_classes), settings())[0].values()
    assert worst.attacks[-1] == attacks["autoattack"] and worst.least_classes <= n_classes


NEEDS = {
    ("dlr", 2): (3, {"single:1", "single:2", "average", "max", "max_average", "average_max"}),
    ("dlr", 3): (None, set()),
    ("dlr-targeted", 3): (4, {"single:1", "single:2", "average", "max", "max_average", "average_max"}),
    ("dlr-targeted", 4): (None, set()),
    ("margin", 2): (None, set()),
}


@pytest.mark.parametrize(("loss", "n_classes"), NEEDS)
def test_attacks_whose_loss_is_undefined_are_skipped_with_the_reason(loss, n_classes):
    needed, names = NEEDS[loss, n_classes]
    attacks, skipped = expand(["all"], deployment(n_classes), settings(loss))
    assert {each.name for each in skipped} == names and not names & set(attacks)
    assert {each.reason for each in skipped} == ({f"it needs {needed} classes, the network has {n_classes}"} if needed else set())
    (worst,) = expand(["worst"], deployment(n_classes), settings(loss))[0].values()
    assert worst.least_classes <= n_classes


def test_another_packages_attacks_are_skipped_too():
    names = ["torchattacks:APGDT", "torchattacks:AutoAttack", "torchattacks:APGD(loss='dlr')", "torchattacks:PGD"]
    attacks, skipped = expand(names, deployment(2), settings())
    assert list(attacks) == names[3:] and [each.name for each in skipped] == names[:3]


@pytest.fixture(params=[2, 3])
def images(request):
    """A network, and images that its last exit is right on."""
    net = Net(request.param).eval()
    x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return net, x, net(x)[-1].argmax(-1).detach()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_autoattack_reaches_the_boundary_of_a_linear_network(norm, n_classes):
    """The margin of a linear network falls by eps times the dual norm of a difference of weights, no more: found to 1 %."""
    net = Net(n_classes, side=8).eval()
    x = 0.4 + 0.2 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = net(x)[-1].argmax(-1)
    weight = net.exit_2.weight.detach()
    logits = net(x)[-1].detach()
    dual = 1 if norm == "Linf" else 2
    lengths = torch.linalg.vector_norm(weight[None] - weight[y][:, None], ord=dual, dim=-1)
    margins = logits.gather(1, y[:, None]) - logits
    radius = (margins / lengths).masked_fill(lengths == 0, torch.inf).amin(1)
    eps = float(radius.sort().values[5:7].mean())
    x_adv = run_autoattack(lambda z: net(z)[-1], x, y, ThreatModel(norm, eps), seed=0, variant="few-classes")
    broken = net(x_adv)[-1].argmax(-1) != y
    assert broken[radius < 0.99 * eps].all() and not broken[radius > eps].any()
    assert 0 < int(broken.sum()) < 12


@pytest.mark.parametrize(("attacks", "loss"), [("all", "ce"), ("worst", "ce"), ("worst", "dlr")])
def test_an_evaluation_ends_without_errors(images, attacks, loss, tmp_path):
    net, x, y = images
    found = exitbench.evaluate(
        net, dataset=(x, y), attacks=attacks, loss=loss, steps=3, eps=0.05, policy="entropy:0.4", results=tmp_path
    )
    assert "trust not checked" not in str(found) and " error" not in str(found)
    (evaluation,) = evaluations(Store(tmp_path / "store"))
    assert evaluation.complete
    assert not evaluation.worst[~evaluation.clean.correct].any()
