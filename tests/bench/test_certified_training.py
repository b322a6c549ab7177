"""Training on bounds: the loss is that of its formula, its bounds are sound, and networks that it trains are certified."""

import copy
import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F

from exitbench.attacks.regions import ThreatModel
from exitbench.bounds.interval import Interval
from exitbench.bounds.network import interval_bounds, margin_bounds
from exitbench.bounds.trace import traced
from exitbench.cli.training_progress import TrainingProgress
from exitbench.models.errors import InvalidValue
from exitbench.models.multi_exit import MultiExitNet
from exitbench.training.certified import Certified, bounded_network, bounded_step, certified_loss
from exitbench.training.descent import Descent, plateau
from exitbench.training.loop import EpochRecord, Trainer
from exitbench.training.recipe import Crafting, Phase, Recipe
from exitbench.training.recipe_file import read_recipe
from tests.bench.trained import TRAINED_ON, digits

SHAPE = (1, 8, 8)
EPS = 0.04


def network(seed=0):
    torch.manual_seed(seed)
    stages = [nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.ReLU()), nn.Sequential(nn.Conv2d(6, 8, 2), nn.ReLU())]
    linear = [nn.Linear(54, 12), nn.Dropout(0.5), nn.Linear(12, 10)]
    heads = [nn.Sequential(nn.Flatten(), *linear), nn.Sequential(nn.Flatten(), nn.Linear(32, 10))]
    return MultiExitNet(stages, heads)


def batch(n=16):
    found = digits().batch(0, n)
    return found.x, found.y


def loss_at(settings, share, eps=0.05):
    net = network().eval()
    x, y = batch()
    return certified_loss(bounded_network(net, SHAPE), net(x), x, y, settings, eps, torch.tensor(share))


def margins_at(radius):
    net = network().eval()
    x, y = batch()
    features = interval_bounds(traced(net, SHAPE), Interval((x - radius).clamp(0, 1), (x + radius).clamp(0, 1)), rounding=False)
    return [margin_bounds(features, k, y, through=False) for k in range(2)], y


def test_the_loss_mixes_clean_and_worst_logits_of_every_exit():
    worst, y = margins_at(0.05 * 4 / 3)
    x, _ = batch()
    clean = network().eval()(x)
    loss, last = loss_at(Certified(kappa=0.25), 1.0)
    expected = sum(0.25 * F.cross_entropy(z, y) + 0.75 * F.cross_entropy(-m, y) for z, m in zip(clean, worst, strict=True))
    assert torch.allclose(loss, expected, atol=1e-5) and torch.allclose(last, worst[1], atol=1e-5)
    start, _ = loss_at(Certified(kappa=0.25), 0.0)
    assert torch.allclose(start, sum(F.cross_entropy(z, y) for z in clean), atol=1e-5)


def test_with_a_gate_an_exit_may_be_wrong_by_less_than_it_takes_to_open():
    worst, y = margins_at(0.05 * 4 / 3)
    lead = 2.0 * F.one_hot(y, 10)
    loss, _ = loss_at(Certified(kappa=0.0, gate=2.0, saving=0.5), 1.0)
    first = F.cross_entropy(lead - worst[0], y) + 0.5 * F.cross_entropy(-lead - worst[0], y)
    assert torch.allclose(loss, first + F.cross_entropy(-worst[1], y), atol=1e-5)


def test_backward_substitution_counts_while_the_radius_grows():
    ibp, crown = (loss_at(Certified(kappa=0.0, bounds=bounds), 0.5)[0] for bounds in ("ibp", "crown_ibp"))
    assert crown < ibp
    ibp, crown = (loss_at(Certified(kappa=0.0, bounds=bounds), 1.0)[0] for bounds in ("ibp", "crown_ibp"))
    assert torch.allclose(crown, ibp)


def test_the_radius_grows_smoothly_from_the_warm_up_to_the_end_of_the_ramp():
    settings = Certified(warmup=0.1, ramp=0.5)
    shares = settings.grown(torch.linspace(0, 1, 101))
    assert shares[:11].max() == 0 and shares[50:].min() == pytest.approx(1) and (shares.diff() >= 0).all()
    assert shares.diff().max() < 0.03
    assert [plateau(0.0), plateau(0.05), plateau(0.69), plateau(1.0)] == pytest.approx([0.01, 1, 1, 0])


def test_a_step_counts_what_is_right_for_certain():
    x, y = batch()
    net = network().eval()
    _, (right, certain) = bounded_step(bounded_network(net, SHAPE), net(x), x, y, Certified(radius=1.0), 1e-4, 1.0)
    assert torch.equal(right, net(x)[1].argmax(-1) == y) and (right | ~certain).all()


@pytest.mark.parametrize(
    "settings",
    [{"bounds": "lp"}, {"warmup": 0.7}, {"kappa": 1.5}, {"radius": 0.0}, {"saving": -1.0}],
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(InvalidValue):
        Certified(**settings)


def test_what_it_does_not_go_with():
    with pytest.raises(InvalidValue, match="crafts no images"):
        Phase(1, Crafting("main"), certified=Certified())
    with pytest.raises(InvalidValue, match="without batch normalisation"):
        bounded_network(MultiExitNet([nn.BatchNorm2d(1)], [nn.Flatten()]), SHAPE)


def recipe(certified, epochs=10):
    phases = (Phase(epochs, certified=certified),)
    rule = {"schedule": "plateau", "optimizer": "adam", "weight_decay": 0.0, "clip": 10.0}
    return Recipe("rdi_smallcnn", "digits", "bounds", ThreatModel("Linf", EPS), phases, 40, 0.01, **rule)


def part(start, stop):
    whole = digits()
    return replace(whole, images=whole.images[start:stop], labels=whole.labels[start:stop])


def trained_by(certified, folder):
    """Return how many of 100 test images are certified, and the journal of the training."""
    net = network()
    trainer = Trainer(net, recipe(certified), part(0, 600), part(TRAINED_ON, TRAINED_ON + 20), 0, folder / "resume")
    history = list(trainer.epochs())
    test = digits().batch(TRAINED_ON, TRAINED_ON + 100)
    x, y = test.x.double(), test.y
    features = interval_bounds(traced(net.eval(), SHAPE), Interval((x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1)))
    margins = margin_bounds(features, 1, y, through=False).masked_fill(F.one_hot(y, 10).bool(), torch.inf)
    return int((margins.amin(1) > 0).sum()), history


def test_it_trains_networks_that_are_certified(tmp_path):
    """A network trained without bounds, of the same size and as long, has far less that is certified."""
    without, _ = trained_by(None, tmp_path)
    (tmp_path / "resume").unlink()
    by_intervals, history = trained_by(Certified(), tmp_path)
    (tmp_path / "resume").unlink()
    by_rule, _ = trained_by(Certified("crown_ibp", nearest=1, gate=1.0), tmp_path)
    assert without < 25 and min(by_intervals, by_rule) > 45
    assert history[-1].clean_accuracy > 0.8 and 0.3 < history[-1].attacked_accuracy < history[-1].clean_accuracy


def test_its_progress_speaks_of_certified_images():
    record = EpochRecord(1, 0.5, 0.9, 0.4, 0.95, 0.5, 0, 1.0, 100.0)
    for settings, word in ((Certified(), "certified"), (None, "attacked")):
        console = Console(file=io.StringIO(), width=200)
        progress = TrainingProgress(console, recipe(settings))
        progress.work = [1.0] * recipe(settings).epochs
        progress.epoch(record)
        assert f"training clean 90.0%, {word} 40.0%" in console.file.getvalue()


def test_its_settings_come_back_from_their_file(tmp_path):
    given = recipe(Certified("crown_ibp", gate=2.0))
    (tmp_path / "recipe.json").write_text(json.dumps(given.summary()))
    assert read_recipe(tmp_path / "recipe.json") == given
    assert given.text() == "10 epochs, on bounds (crown_ibp)"


@pytest.mark.parametrize(("optimizer", "clip"), [("adam", None), ("adam", 0.5), ("sgd", 0.5)])
def test_the_descent_is_that_of_torch(optimizer, clip):
    """Some steps on a quadratic, beside torch's own optimizer, clipping and schedule."""
    settings = replace(recipe(None), optimizer=optimizer, clip=clip, weight_decay=0.01)
    ours, theirs = (nn.Parameter(torch.tensor([3.0, -2.0, 0.5])) for _ in range(2))
    descent = Descent([ours], settings, 20)
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    more = {} if optimizer == "adam" else {"momentum": 0.9, "nesterov": True}
    other = kinds[optimizer]([theirs], lr=settings.peak_lr, weight_decay=0.01, **more)
    rates = torch.optim.lr_scheduler.LambdaLR(other, lambda step: plateau(step / 20))
    state = None
    for step in range(20):
        descent.step([2 * ours.detach()])
        descent.made += 1
        theirs.grad = 2 * theirs.detach()
        if clip is not None:
            nn.utils.clip_grad_norm_([theirs], clip)
        other.step()
        rates.step()
        if step == 9:
            state = copy.deepcopy(descent.state()), ours.detach().clone()
    assert torch.allclose(ours, theirs, atol=1e-6) and not torch.allclose(ours, torch.tensor([3.0, -2.0, 0.5]), atol=0.05)
    last = ours.detach().clone()
    descent.restore(state[0])
    ours.data.copy_(state[1])
    for _ in range(10):
        descent.step([2 * ours.detach()])
    assert torch.equal(ours, last)
