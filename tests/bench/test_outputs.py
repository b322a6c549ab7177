"""Networks that answer attacks otherwise than clean images are seen by their outputs; honest ones raise no alarm."""

from __future__ import annotations

import copy
from io import StringIO

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from exitbench.attacks.noise import Noise
from exitbench.checks import outputs
from exitbench.checks.subject import Subject
from exitbench.errors import UserError
from exitbench.models.foreign import ForeignNet
from exitbench.models.unused import unused_copy
from exitbench.report.charts.looks import looks_of
from exitbench.report.charts.rows import rows_of
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.leaderboard.terminal import summary
from exitbench.report.page.board import rows
from exitbench.report.page.detail import detail
from exitbench.scoring.flags import flags_of
from exitbench.store.store import Store
from exitbench.target.calibrate import all_logits
from tests.bench.evaluated import evaluate, only_evaluation
from tests.bench.trained import SETTINGS, SHAPE, digits, planted, ready, trained
from tests.toys import small_convolutional

MEMORY = 64


def on_grid(x: Tensor) -> Tensor:
    """Whether all pixels are multiples of 1/255, ``(B,)``."""
    return ((x * 255 - (x * 255).round()).abs() < 0.03).flatten(1).all(1)


class Two(nn.Module):
    """An undefended network, and another that stands in for it in front of attacks."""

    def __init__(self) -> None:
        super().__init__()
        net = trained()[0]
        self.bad, self.good = copy.deepcopy(net), copy.deepcopy(net)
        for head in self.good.heads:
            head[-1].weight.data.mul_(0.2)


class Honest(Two):
    def forward(self, x):
        return self.bad(x)


class Grid(Two):
    def forward(self, x):
        return torch.where(on_grid(x)[None, :, None], self.bad(x), self.good(x))


class Gate(Two):
    """Its first exit leaves its prediction alone on clean images, and is made sure of it on all others."""

    def forward(self, x):
        logits = self.bad(x).clone()
        logits[0] = torch.where(on_grid(x)[:, None], logits[0], 50 * logits[0])
        return logits


class One(Two):
    def forward(self, x):
        return self.bad(x) if len(x) == 1 else self.good(x)


class Away(Two):
    def forward(self, x):
        logits = self.bad(x)
        noisy = logits + torch.randn_like(logits)
        return torch.where(on_grid(x)[None, :, None], logits, noisy)


class State(Two):
    """It remembers images on the grid, and answers whatever is in the ball around one with that one's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.kept = torch.empty(0, 64), torch.empty(3, 0, 10)

    def forward(self, x):
        logits, rows = self.bad(x), x.detach().flatten(1)
        hit = torch.zeros(len(x), dtype=torch.bool)
        if len(self.seen):
            distance, nearest = torch.cdist(rows, self.seen, p=float("inf")).min(1)
            hit = distance <= SETTINGS.region.eps + 0.01
            logits = torch.where(hit[None, :, None], self.kept[:, nearest] + logits - logits.detach(), logits)
        new = on_grid(x) & ~hit
        self.seen = torch.cat([self.seen, rows[new]])[-MEMORY:]
        self.kept = torch.cat([self.kept, logits.detach()[:, new]], 1)[:, -MEMORY:]
        return logits


class Once(Two):
    """It answers the first slice of images as it is, and all later batches by the other network."""

    used = False

    def forward(self, x):
        net = self.good if self.used else self.bad
        self.used = self.used or len(x) >= 32
        return net(x)


def subject_of(net: nn.Module) -> Subject:
    batch = digits().batch(1400, 1432)
    x = (batch.x * 255).round() / 255
    return Subject(net, trained()[1], x, batch.y, Noise(0, tuple(range(32))), SETTINGS)


def found(net: nn.Module) -> set[str]:
    wrapped = ForeignNet(net.eval(), SHAPE)
    unused = unused_copy(wrapped)
    wrapped(subject_of(wrapped).x)
    return {flag.name for flag in outputs.flags(outputs.measure(subject_of(wrapped), unused)) if flag.level == "failure"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Grid, "discontinuous outputs"),
        (Gate, "discontinuous outputs"),
        (One, "randomised outputs"),
        (Away, "randomised outputs"),
        (State, "outputs that depend on earlier images"),
        (Once, "outputs that depend on earlier images"),
    ],
)
def test_a_network_that_attacks_do_not_see_is_a_failure(kind, name):
    assert name in found(kind())


def test_an_honest_network_of_ones_own_raises_no_alarm():
    assert found(Honest()) == set()


@pytest.mark.parametrize("seed", range(20))
def test_random_weights_raise_no_alarm(seed):
    net = small_convolutional()
    torch.manual_seed(seed)
    for layer in net.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(32, 1, 4, 4, generator=generator) * 255).round() / 255
    y = net(x)[-1].argmax(-1)
    subject = Subject(net, trained()[1], x, y, Noise(0, tuple(range(32))), SETTINGS)
    assert outputs.flags(outputs.measure(subject, unused_copy(net))) == []


def test_a_network_that_cannot_be_copied_is_measured_without_a_copy():
    class Lone(Honest):
        def __deepcopy__(self, memo):
            raise RuntimeError("there is one of me")

    net = ForeignNet(Lone().eval(), SHAPE)
    assert unused_copy(net) is None
    numbers = outputs.measure(subject_of(net), None)
    assert numbers.afresh is None and outputs.flags(numbers) == []


def test_the_copy_stays_as_it_was():
    net = ForeignNet(State().eval(), SHAPE)
    unused = unused_copy(net)
    outputs.measure(subject_of(net), unused)
    assert len(unused.net.seen) == 0 < len(net.net.seen)


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_network_that_fails_on_held_out_images_is_named(fault):
    class Failing(Two):
        def forward(self, x):
            if len(x) <= MEMORY:
                return self.bad(x)
            if fault == "raises":
                raise RuntimeError("too many images")
            return self.bad(x) * torch.nan

    net = ForeignNet(Failing().eval(), SHAPE)
    with pytest.raises(UserError, match=r"held-out images that set the exit rule.*" + ("too many" if fault == "raises" else "")):
        all_logits(net, digits())


class NanOffGrid(nn.Module):
    """It has no answer for the images that are not digits and are bright above."""

    def forward(self, x):
        off = ((x * 16 - (x * 16).round()).abs() > 1e-3).flatten(1).any(1)
        some = x[:, :, :4].flatten(1).sum(1) > x[:, :, 4:].flatten(1).sum(1) + 2
        return torch.where((off & some)[:, None, None, None], torch.nan, x)


def test_images_without_an_answer_do_not_spare_their_slice(tmp_path):
    prepared = ready(planted(stage=NanOffGrid()))
    _, store = evaluate(tmp_path, ["average"], prepared)
    evaluation = only_evaluation(store)
    attack = evaluation.attacks[0]
    assert 0 < attack.search.undefined < 0.6 * evaluation.n, "some of them, not all"
    assert not evaluation.unfinished and evaluation.worst.sum() < evaluation.clean.correct.sum()
    assert "undefined outputs" in {flag.name for flag in flags_of(evaluation) if flag.level == "failure"}


def test_they_count_in_an_attack_that_is_not_finished_too(tmp_path):
    _, store = evaluate(tmp_path, ["average"], ready(planted(stage=NanOffGrid()), n=64))
    (average,) = only_evaluation(store).record.attacks[1:]
    (store.root / "cells" / average.keys[1][:2] / f"{average.keys[1]}.npz").unlink()
    evaluation = only_evaluation(Store(tmp_path))
    assert [each.name for each in evaluation.unfinished] == ["average"] and evaluation.unfinished[0].undefined > 0
    assert "undefined outputs" in {flag.name for flag in flags_of(evaluation) if flag.level == "failure"}


class Raises(nn.Module):
    def forward(self, x):
        if bool(((x * 16 - (x * 16).round()).abs() > 1e-3).any()):
            raise RuntimeError("digits only")
        return x


def test_a_network_that_no_attack_could_run_on_has_no_worst_case(tmp_path):
    prepared = ready(planted(stage=Raises()))
    _, store = evaluate(tmp_path, ["average"], prepared)
    evaluation = only_evaluation(store)
    assert len(evaluation.unfinished) == 1 and not evaluation.attacked
    row = leaderboard([evaluation]).set_index("attack").loc["worst"]
    assert row[["accuracy", "ci_low", "ci_high", "accuracy_any_exit"]].isna().all() and row["status"] == "attacks unfinished: 1"
    assert detail(evaluation).worst is None and "worst" not in rows_of([evaluation], looks_of([evaluation]))[0]
    (shown,) = rows({"board": [evaluation]})
    assert shown.cells["worst"].text == "not attacked"
    console = Console(width=120, record=True, file=StringIO())
    console.print(summary(evaluation, {"average"}))
    line = next(line for line in console.export_text().splitlines() if line.startswith("│ worst case"))
    assert "-" in line and "100" not in line
