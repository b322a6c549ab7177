import pytest
import torch

from exitbench.attacks.regions import Ball
from exitbench.errors import UserError
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import FixedExit
from exitbench.models.views import DeployedView
from exitbench.runner.certify import NotCertified, certify
from exitbench.runner.passes import counted
from exitbench.target.target import check_model
from tests.toys import Passed, batch, linear_exits, small_convolutional

NET = linear_exits(2)
BALL = Ball("Linf", 0.1)


def spoiled(spoil):
    x, _, _ = batch()
    x_adv = x.clone()
    return x, spoil(x_adv)


def test_what_is_certified_is_scored_on_all_exits():
    x, _, _ = batch()
    certified = certify(NET, x, (x + 0.1).clamp(0, 1), BALL)
    assert torch.equal(certified.logits, NET((x + 0.1).clamp(0, 1)))
    assert certified.distances.tolist() == pytest.approx([0.1] * 6, abs=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_step_of_a_thousandth_outside_the_ball_is_seen(norm):
    x, _, _ = batch()
    step = torch.zeros_like(x)
    step[0, 0, 0, 0] = 0.101
    with pytest.raises(NotCertified, match=r"1 of 6 images leave the L.* ball of 0.1, by up to 0.001"):
        certify(NET, x, x + step, Ball(norm, 0.1))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda x: x.index_fill_(0, torch.tensor([0]), float("nan")), "1 of 6 images hold NaN"),
        (lambda x: x + 1, "leave the box"),
        (lambda x: x[:3], "the attack returned"),
        (lambda x: x.double(), "the attack returned"),
        (lambda x: None, "NoneType"),
    ],
)
def test_what_is_no_image_is_refused(spoil, why):
    x, x_adv = spoiled(spoil)
    with pytest.raises(NotCertified, match=why):
        certify(NET, x, x_adv, BALL)


def test_a_model_that_gives_nan_is_no_judge():
    net = linear_exits(2)
    net.heads[1][1].bias.fill_(float("inf"))
    x, _, _ = batch()
    with pytest.raises(NotCertified, match="NaN or infinite logits"):
        certify(net, x, x, BALL)


class TestCheckModel:
    def test_a_sound_model_passes(self):
        x, y, _ = batch()
        check_model(NET, x, y)

    def test_nan_is_refused(self):
        net = linear_exits(2)
        net.heads[0][1].weight.fill_(float("nan"))
        with pytest.raises(UserError, match="NaN"):
            check_model(net, *batch()[:2])

    def test_probabilities_are_refused(self):
        heads = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Softmax(-1)) for _ in range(2)]
        with pytest.raises(UserError, match="must return logits"):
            check_model(MultiExitNet([Passed(), Passed()], heads), *batch()[:2])

    def test_probabilities_at_one_exit_are_refused_by_its_number(self):
        heads = [
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), last)
            for last in (torch.nn.Identity(), torch.nn.Softmax(-1))
        ]
        with pytest.raises(UserError, match="probabilities at exit 2"):
            check_model(MultiExitNet([Passed(), Passed()], heads), *batch()[:2])

    def test_too_few_classes_are_refused(self):
        x, _, _ = batch()
        with pytest.raises(UserError, match="3 classes"):
            check_model(NET, x, torch.full((6,), 3))


class TestPasses:
    def test_forwards_and_backwards_are_counted_in_samples(self):
        net = small_convolutional(2)
        x = torch.rand(5, 1, 4, 4, requires_grad=True)
        with counted(net) as passes:
            torch.autograd.grad(net(x).sum(), x)
            with torch.no_grad():
                net(x[:2], upto=0)
        assert (passes.forwards, passes.backwards) == (7, 5)

    def test_views_are_counted_too_and_counting_ends(self):
        net = small_convolutional(2)
        x = torch.rand(5, 1, 4, 4, requires_grad=True)
        with counted(net) as passes:
            torch.autograd.grad(DeployedView(net, FixedExit(1))(x).sum(), x)
        net(x)
        assert (passes.forwards, passes.backwards) == (5, 5)
