"""The training loop on a few images: it learns, resumes exactly, undoes collapsed epochs, and stops if it diverges."""

import errno
from dataclasses import replace

import pytest
import torch
from torch import nn

from exitbench.attacks.deployed_loss import expected_failure
from exitbench.attacks.regions import ThreatModel
from exitbench.data.digits import load_digits
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.models.blocks import conv_bn
from exitbench.models.multi_exit import MultiExitNet
from exitbench.training import loop
from exitbench.training.guard import Guard, collapsed, stepped_down
from exitbench.training.images import Images
from exitbench.training.loop import CPU, Diverged, Trainer
from exitbench.training.loss import DEPLOYED_TEMPERATURE, disagreement
from exitbench.training.machine import Machine
from exitbench.training.recipe import Crafting, Phase, Recipe

PGD = Crafting("average", steps=1, step=1.0, start=1.0, bounded=True)
RECIPE = Recipe("rdi_smallcnn", "digits", "average", ThreatModel("Linf", 0.1), (Phase(3, PGD),), batch_size=32, peak_lr=0.05)
KINDS = {
    "halves": Phase(2, PGD),
    "clean": Phase(2),
    "sampled, mixed": Phase(2, Crafting("sampled"), attacked_share=0.5),
    "policy": Phase(2, Crafting("policy", deferral=0.5), attacked_share=1.0, deployed_weight=2.0),
    "agreeing": Phase(2, Crafting("sampled"), attacked_share=0.75, agreement=2.0),
    "max_average": Phase(2, replace(PGD, against="max_average"), attacked_share=0.5),
}


def few(n=96) -> Split:
    split = load_digits("train", (1, 8, 8))
    return replace(split, images=split.images[:n], labels=split.labels[:n])


def fresh() -> MultiExitNet:
    """Return a network of two exits with dropout and batch normalisation, which make training random and stateful."""
    torch.manual_seed(0)
    first = nn.Sequential(*conv_bn(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(*conv_bn(8, 16, 3, padding=1), nn.ReLU())
    heads = [nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(n, 10)) for n in (128, 256)]
    return MultiExitNet([first, second], heads)


def trainer(folder, recipe=RECIPE, seed=0, machine=CPU) -> Trainer:
    return Trainer(fresh(), recipe, few(), few(64), seed, folder / "x.resume", machine)


def trained(folder, epochs=None, recipe=RECIPE, machine=CPU) -> tuple[MultiExitNet, Trainer]:
    run = trainer(folder, recipe, machine=machine)
    for record in run.epochs():
        if record.epoch == epochs:
            break
    return run.model, run


def test_the_loss_falls(tmp_path):
    _, run = trained(tmp_path)
    losses = [record.loss for record in run.history]
    assert len(losses) == 3 and losses[-1] < losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_makes_the_weights_of_an_unbroken_one(tmp_path, kind):
    recipe = replace(RECIPE, phases=(Phase(1), KINDS[kind]))
    whole, _ = trained(tmp_path / "a", recipe=recipe)
    trained(tmp_path / "b", epochs=2, recipe=recipe)
    resumed, run = trained(tmp_path / "b", recipe=recipe)
    assert [record.epoch for record in run.history] == [1, 2, 3]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_the_deployed_rules_loss_falls_further_when_it_is_trained_on(tmp_path):
    found = []
    for weight in (0.0, 1.0):
        phases = (Phase(8), Phase(8, deployed_weight=weight))
        _, run = trained(tmp_path / str(weight), recipe=replace(RECIPE, phases=phases, peak_lr=0.02))
        found.append(deployed_loss(run))
    assert found[1] < found[0]


@torch.no_grad()
def deployed_loss(run) -> float:
    x, y = run.images.batch(torch.arange(96))
    return float(expected_failure(run.model.eval()(x), y, run._policy(None), DEPLOYED_TEMPERATURE).mean())


def test_exits_agree_more_when_they_are_asked_to(tmp_path):
    found = []
    for weight in (0.0, 2.0):
        phases = (Phase(8), Phase(8, agreement=weight))
        _, run = trained(tmp_path / str(weight), recipe=replace(RECIPE, phases=phases, peak_lr=0.02))
        with torch.no_grad():
            found.append(float(disagreement(run.model.eval()(run.images.batch(torch.arange(96))[0])).mean()))
    assert found[1] < 0.8 * found[0]


def test_bf16_and_compilation_train_the_same_weights_by_name(tmp_path):
    machine = Machine(torch.device("cpu"), "bf16")
    whole, _ = trained(tmp_path / "a", recipe=replace(RECIPE, phases=(Phase(2, PGD),)))
    half, run = trained(tmp_path / "b", recipe=replace(RECIPE, phases=(Phase(2, PGD),)), machine=machine)
    assert run.history[-1].loss < run.history[0].loss
    assert {name: (t.shape, t.dtype) for name, t in half.state_dict().items()} == {
        name: (t.shape, t.dtype) for name, t in whole.state_dict().items()
    }


def test_the_bar_is_told_the_part_of_each_epoch(tmp_path):
    parts = []
    run = Trainer(fresh(), RECIPE, few(), few(64), 0, tmp_path / "x.resume", on_step=parts.append)
    next(run.epochs())
    assert parts == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_resume_file_of_another_recipe_is_refused(tmp_path):
    trained(tmp_path, epochs=1)
    for other in ({"recipe": replace(RECIPE, peak_lr=0.01)}, {"seed": 1}):
        with pytest.raises(UserError, match="another recipe or seed"):
            trainer(tmp_path, **other)


def test_a_damaged_resume_file_is_refused(tmp_path):
    (tmp_path / "x.resume").write_bytes(b"PK half a file")
    with pytest.raises(UserError, match="not readable"):
        trainer(tmp_path)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_epoch(tmp_path):
    run = trainer(tmp_path)
    epochs = run.epochs()
    next(epochs)
    kept = (tmp_path / "x.resume").read_bytes()
    with torch.no_grad():
        run.model.heads[0][-1].bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="became nan in step 1 of epoch 2"):
        next(epochs)
    assert (tmp_path / "x.resume").read_bytes() == kept


def test_a_full_disk_is_said_and_what_was_saved_stays(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    epochs = run.epochs()
    next(epochs)

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "write_whole", full)
    with pytest.raises(UserError, match=r"No space left.*what is saved is epoch 1: make room"):
        next(epochs)
    monkeypatch.undo()
    assert len(trainer(tmp_path).history) == 1


def collapsing(run, monkeypatch, measured):
    """Make the guard measure these accuracies, one per epoch."""
    values = iter(measured)
    monkeypatch.setattr(run.guard, "measure", lambda model, image_size: (0.9, next(values)))


def test_a_collapsed_epoch_is_undone_and_trained_with_a_gentler_attack(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    collapsing(run, monkeypatch, [0.4, 0.05, 0.41, 0.42])
    records = list(run.epochs())
    assert [record.held_out_pgd for record in records] == [0.4, 0.41, 0.42]
    assert [record.collapses for record in records] == [0, 1, 1]
    assert trainer(tmp_path).collapses == 1


def test_the_undone_epoch_leaves_no_trace_in_weights_or_schedule(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    epochs = run.epochs()
    next(epochs)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    step_before = run.descent.made
    collapsing(run, monkeypatch, [0.0, 0.0, 0.0])
    run.history[0] = replace(run.history[0], held_out_pgd=0.5)
    with pytest.raises(Diverged, match=r"epoch 2 of .* collapsed 3 times: accuracy under PGD fell from 50.0% to 0.0%"):
        next(epochs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
    assert run.descent.made == step_before


def test_a_new_phase_is_not_held_against_the_last_one(tmp_path, monkeypatch):
    run = trainer(tmp_path, recipe=replace(RECIPE, phases=(Phase(1, PGD), Phase(1, PGD))))
    collapsing(run, monkeypatch, [0.6, 0.1])
    assert [record.collapses for record in run.epochs()] == [0, 0]


def test_collapse_needs_something_to_fall_from():
    assert collapsed(0.1, [0.3, 0.25]) and not collapsed(0.2, [0.3]) and not collapsed(0.0, [0.1]) and not collapsed(0.0, [])


def test_stepping_down_means_more_and_shorter_steps_within_the_ball():
    once, twice = (stepped_down(Crafting("main"), times) for times in (1, 2))
    assert stepped_down(Crafting("main"), 0) == Crafting("main")
    assert (once.steps, once.step, once.bounded, once.start) == (2, 0.625, True, 1.0)
    assert twice.steps == 4 and twice.step * twice.steps > once.step * once.steps > 1


def test_the_guard_sees_through_a_net_that_is_right_on_clean_images_alone(tmp_path):
    net, _ = trained(tmp_path, recipe=replace(RECIPE, phases=(Phase(20),)))
    clean, attacked = Guard(Images(few(64), torch.device("cpu")), ThreatModel("Linf", 0.3)).measure(net, None)
    assert clean > 0.5 and attacked < clean / 2
