"""Crafting of training images: closed forms on linear exits, bounds, and stages that must not run."""

import pytest
import torch

from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE
from exitbench.attacks.regions import ThreatModel
from exitbench.models.calibration import equal_share
from exitbench.models.policies import EntropyPolicy
from exitbench.training.craft import craft
from exitbench.training.recipe import Crafting
from tests.toys import batch, linear_exits, small_convolutional

BALL = ThreatModel("Linf", 0.1)
POLICY = EntropyPolicy((0.5, 0.5))


def losses(net, x, y):
    return CE()(net(x), y)


def direction(net, x, y, reduced):
    inputs = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reduced(losses(net, inputs, y)).sum(), inputs)
    return gradient.sign()


def test_n_fgsm_steps_from_a_wide_start_and_is_not_brought_back():
    net = linear_exits()
    x, y, noise = batch(32)
    x_adv = craft(net, x, y, Crafting("main"), BALL, noise)
    start = ThreatModel("Linf", 0.2).start(x, noise, 0)
    assert torch.allclose(x_adv, start + 0.1 * direction(net, start, y, lambda loss: loss[-1]), atol=1e-6)
    assert (x_adv - x).abs().max() > 0.25


def test_without_a_random_start_a_step_on_the_mean_is_fgsm():
    net = linear_exits()
    x, y, noise = batch(8)
    x_adv = craft(net, x, y, Crafting("average", start=0.0, bounded=True), BALL, noise)
    assert torch.allclose(x_adv, x + 0.1 * direction(net, x, y, lambda loss: loss.mean(0)), atol=1e-6)


@pytest.mark.parametrize("against", ["main", "average", "max_average", "sampled", "policy"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_bounded_crafting_stays_in_ball_and_box_and_raises_the_loss(against, norm):
    net = small_convolutional()
    x, y, noise = batch(16, shape=(1, 4, 4), n_classes=5)
    ball = ThreatModel(norm, 0.3)
    x_adv = craft(net, x, y, Crafting(against, 5, 0.4, 1.0, bounded=True), ball, noise, POLICY)
    assert ball.distance(x_adv, x).max() <= 0.3 + 1e-6 and x_adv.min() >= 0 and x_adv.max() <= 1
    assert not x_adv.requires_grad
    assert losses(net, x_adv, y).mean() > losses(net, x, y).mean()


def test_sampled_takes_each_images_own_exit_or_the_mean():
    net = small_convolutional().double()
    x, y, noise = batch(400, shape=(1, 4, 4), n_classes=5)
    x = x.double()
    x_adv = craft(net, x, y, Crafting("sampled", start=0.0), BALL, noise)
    signs = (x_adv - x).sign().flatten(1)
    wanted = [direction(net, x, y, lambda loss, k=k: loss[k]).flatten(1) for k in range(3)]
    wanted.append(direction(net, x, y, lambda loss: loss.mean(0)).flatten(1))
    matches = torch.stack([(signs == candidate).all(1) for candidate in wanted])
    assert matches.any(0).all()
    single = matches & (matches.sum(0) == 1)  # some directions agree; among the others, each candidate occurs
    assert (single.sum(1) > 20).all(), single.sum(1)


def test_sampled_runs_no_stage_that_no_image_needs():
    net = small_convolutional()
    x, y, _ = batch(1, shape=(1, 4, 4), n_classes=5)
    seen = []
    net.stages[2].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    runs = 60
    for seed in range(runs):
        craft(net, x, y, Crafting("sampled"), BALL, Noise(seed, (0,)))
    # Half of the images are attacked at all exits, a third of the others at the last one.
    assert 0.4 * runs < len(seen) < 0.95 * runs


def test_sampled_is_the_same_however_the_batch_is_split():
    net = small_convolutional().double()
    x, y, noise = batch(20, shape=(1, 4, 4), n_classes=5)
    x = x.double()
    whole = craft(net, x, y, Crafting("sampled", 3, 0.5), BALL, noise)
    parts = [
        craft(net, x[rows], y[rows], Crafting("sampled", 3, 0.5), BALL, noise.of(rows)) for rows in torch.arange(20).split(7)
    ]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-12)


def test_max_average_keeps_per_image_the_exit_that_hurts_most():
    net = linear_exits()
    x, y, noise = batch(64)
    crafting = Crafting("max_average", start=0.0, bounded=True)
    singles = [x + 0.1 * direction(net, x, y, lambda loss, k=k: loss[k]) for k in range(3)]
    best = torch.stack([losses(net, single, y).mean(0) for single in singles]).amax(0)
    assert torch.allclose(losses(net, craft(net, x, y, crafting, BALL, noise), y).mean(0), best, atol=1e-6)


def test_deferral_sends_images_to_later_exits():
    net = small_convolutional()
    x, y, noise = batch(64, shape=(1, 4, 4), n_classes=5)
    policy = equal_share(net(x))
    mean_exit = [
        policy(
            net(craft(net, x, y, Crafting("policy", 8, 0.3, 1.0, True, deferral=weight), ThreatModel("Linf", 0.3), noise, policy))
        )
        .double()
        .mean()
        for weight in (0.0, 50.0)
    ]
    assert mean_exit[1] > mean_exit[0]


def test_the_policy_is_needed_to_train_against_it():
    x, y, noise = batch(2)
    with pytest.raises(ValueError, match="needs one"):
        craft(linear_exits(), x, y, Crafting("policy"), BALL, noise)
