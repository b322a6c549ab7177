import pytest
import torch

from exitbench.attacks.regions import ThreatModel
from exitbench.errors import UserError
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import FixedExit
from exitbench.models.views import DeployedView
from exitbench.runner.certify import NotCertified, certify
from exitbench.runner.passes import counted
from exitbench.store.cell import TOLERANCE
from exitbench.target.target import check_model
from tests.toys import Passed, batch, linear_exits, small_convolutional

NET = linear_exits(2)
BALL = ThreatModel("Linf", 0.1)


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
        certify(NET, x, x + step, ThreatModel(norm, 0.1))


def put(value, images):
    """Two pixels of each of the given images at ``value``."""
    return lambda x: x.index_put_((torch.tensor(images)[:, None], torch.tensor(0), torch.tensor([0, 1])), torch.tensor(value))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (put(float("nan"), [1]), "1 of 6 images hold NaN or infinite pixels"),
        (put(float("inf"), [1, 4]), "2 of 6 images hold NaN or infinite pixels"),
        (put(-1e-7, [0, 5]), r"2 of 6 images leave the box \[0, 1\]"),
        (put(1 + 1e-6, [3]), r"1 of 6 images leave the box \[0, 1\]"),
        (lambda x: x[:3], r"the attack returned \(3, 1, 2, 2\) of torch.float32, expected \(6, 1, 2, 2\) of torch.float32"),
        (lambda x: x.double(), r"the attack returned \(6, 1, 2, 2\) of torch.float64, expected \(6, 1, 2, 2\) of torch.float32"),
        (lambda x: x.numpy(), r"the attack returned ndarray, expected \(6, 1, 2, 2\)"),
    ],
)
def test_what_is_no_image_is_refused_and_the_images_are_counted(spoil, why):
    x, x_adv = spoiled(spoil)
    with pytest.raises(NotCertified, match=f"^{why}"):
        certify(NET, x, x_adv, BALL)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_black_and_white_pixels_are_in_the_box(end):
    x = torch.full((2, 1, 2, 2), end)
    assert certify(NET, x, x, BALL).distances.tolist() == [0, 0]


def test_rounding_by_the_tolerance_is_forgiven_and_not_a_bit_more():
    x, edge = torch.zeros(1, 1, 2, 2), torch.tensor(TOLERANCE["Linf"])
    certify(NET, x, x + edge, ThreatModel("Linf", 0.0))
    with pytest.raises(NotCertified, match="leave the Linf ball of 0, by up to 1e-06"):
        certify(NET, x, x + torch.nextafter(edge, torch.tensor(1.0)), ThreatModel("Linf", 0.0))


def test_an_attack_that_pays_for_distance_is_bound_to_the_box_alone():
    x, _, _ = batch()
    assert (certify(NET, x, 1 - x, BALL, bounded=False).distances > 0.1).any()
    with pytest.raises(NotCertified, match="leave the box"):
        certify(NET, x, x + 1, BALL, bounded=False)


def test_a_model_that_gives_nan_is_no_judge():
    net = linear_exits(2)
    net.heads[1][1].bias.fill_(float("inf"))
    x, _, _ = batch()
    with pytest.raises(NotCertified, match=r"^the model returns NaN or infinite logits on the attack's images$"):
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
