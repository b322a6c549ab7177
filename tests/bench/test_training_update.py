"""Updates that never wait for the host: counted random numbers, shapes that do not depend on data, descent, replay, scaling."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from exitbench.attacks.noise import Noise
from exitbench.errors import UserError
from exitbench.models.errors import InvalidValue
from exitbench.training import craft, replay
from exitbench.training.descent import Descent
from exitbench.training.distillation import Distillation
from exitbench.training.draws import CounterDraws
from exitbench.training.earlier_draws import EarlierDraws
from exitbench.training.images import Images
from exitbench.training.loop import CPU
from exitbench.training.machine import Machine
from exitbench.training.recipe import Crafting, Phase
from exitbench.training.replay import PLAIN_FIRST, Replay
from exitbench.training.scaling import roomy, scaled
from exitbench.training.update import Plan, Updater
from tests.bench.test_training_loop import KINDS, PGD, RECIPE, few, fresh, trained, trainer
from tests.toys import batch, small_convolutional


def test_what_is_drawn_for_an_image_does_not_depend_on_its_batch():
    shown = torch.tensor([7, 2**40 + 3, 0, 7])
    whole, parts = CounterDraws(5, shown), [CounterDraws(5, part) for part in shown.split(1)]
    assert torch.equal(whole.offsets(9), torch.cat([part.offsets(9) for part in parts], 1))
    assert torch.equal(whole.classes(6), torch.cat([part.classes(6) for part in parts]))
    like = torch.empty(4, 3)
    alone = [part.noise(slice(None)).uniform(like[:1]) for part in parts]
    assert torch.equal(whole.noise(slice(None)).uniform(like), torch.cat(alone)) and not torch.equal(alone[0], alone[2])


def test_crops_and_mirrors_are_evenly_spread():
    draws = CounterDraws(0, torch.arange(4000))
    for edge in draws.offsets(3):
        assert torch.bincount(edge).tolist() == pytest.approx([4000 / 3] * 3, abs=100)
    assert float(draws.mirrored().double().mean()) == pytest.approx(0.5, abs=0.03)


class NoHost(TorchDispatchMode):
    """Counts operations, and refuses those that move data between devices; on the device ``meta`` there are no data to read."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)}
        assert len(devices) < 2, f"{operation} between {devices}"
        self.n += 1
        return out


NEO_KD, ARD = Distillation("neo_kd", orthogonal=1.0), Distillation("ard")
DISTILLED = {each.kind: Phase(1, PGD, distillation=each) for each in (NEO_KD, ARD)}
ON_A_GPU = {**{name: phase for name, phase in KINDS.items() if not phase.needs_policy}, **DISTILLED}


@pytest.mark.parametrize("kind", ON_A_GPU)
def test_an_update_never_asks_the_host(kind):
    recipe = replace(RECIPE, exit_weights="sdn", crop_padding=1, flip=True)
    with torch.device("meta"):
        net = fresh()
    images = Images(few(), torch.device("meta"))
    descent = Descent(net.parameters(), recipe, 10)
    update = Updater(net, images, recipe, Machine(torch.device("meta")), descent, torch.empty(2, device="meta"))
    shown = torch.empty(32, dtype=torch.int64, device="meta")
    phase = ON_A_GPU[kind]
    with NoHost() as mode:
        update(shown % 96, CounterDraws(0, shown), Plan(phase, phase.crafting, None))
    assert mode.n > 100


def test_a_host_that_is_asked_is_noticed():
    x = torch.empty(3, device="meta")
    for asks in (lambda: float(x[0]), lambda: x[x > 0], lambda: x + torch.ones(3), lambda: bool(x.any())):
        with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), NoHost():
            asks()


@pytest.mark.parametrize("kind", ["halves", "sampled, mixed", "neo_kd"])
def test_an_update_is_the_mathematics_written_out(kind):
    """In float64: masked rows, losses exit by exit, torch's optimiser and schedule."""
    phase = {**KINDS, **DISTILLED}[kind]
    ours, theirs = (fresh().double() for _ in range(2))
    for head in [*ours.heads, *theirs.heads]:
        head[1].p = 0.0
    images = Images(few(), CPU.device)
    images.pixels = images.pixels.double()
    descent = Descent(ours.parameters(), RECIPE, 10)
    update = Updater(ours, images, RECIPE, CPU, descent, None)
    sgd = torch.optim.SGD(theirs.parameters(), RECIPE.peak_lr, RECIPE.momentum, weight_decay=RECIPE.weight_decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, RECIPE.peak_lr, total_steps=10)
    for step in range(3):
        shown = torch.arange(32 * step, 32 * step + 32)
        update(shown, CounterDraws(0, shown), Plan(phase, phase.crafting, None))
        written_out(theirs, sgd, images, shown, phase)
        schedule.step()
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, atol=1e-10, rtol=0, msg=name)


def written_out(net, sgd, images, shown, phase):
    x, y = images.batch(shown)
    share = 1.0 if phase.attacked_share is None else phase.attacked_share
    chosen = torch.arange(32) < round(share * 32)
    net.eval().requires_grad_(False)
    mixed = x.clone()
    mixed[chosen] = craft.craft(net, x[chosen], y[chosen], phase.crafting, RECIPE.ball, Noise(0, shown[chosen]))
    net.requires_grad_(True).train()

    def loss_of(logits):
        return sum(torch.nn.functional.cross_entropy(each, y) for each in logits)

    if phase.attacked_share is None:
        clean, attacked = net(x), net(mixed)
        loss = loss_of(clean) + loss_of(attacked)
        if phase.distillation:
            loss = loss + phase.distillation.loss(clean, attacked, y, CounterDraws(0, shown))
        loss = loss / 2
    else:
        loss = loss_of(net(mixed))
    sgd.zero_grad()
    loss.backward()
    sgd.step()


def test_losses_at_full_width_are_those_of_rows_that_leave():
    net = small_convolutional().double()
    x, y, noise = batch(60, shape=(1, 4, 4), n_classes=5)
    exits = (noise.uniform(torch.empty(60, 1))[:, 0] * 4).long()
    assert exits.unique().tolist() == [0, 1, 2, 3]
    found = [loss(net, x.double(), y, exits) for loss in (craft._sampled_loss, craft._sampled_loss_at_full_width)]
    torch.testing.assert_close(*found, atol=1e-12, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"schedule": "steps", "nesterov": False}])
def test_descent_is_torchs_on_torchs_schedule(settings):
    recipe = replace(RECIPE, **settings)
    ours, theirs = (nn.Linear(5, 3).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    left_out = nn.Parameter(torch.ones(2, dtype=torch.float64))
    descent = Descent([*ours.parameters(), left_out], recipe, 12)
    sgd = torch.optim.SGD(
        theirs.parameters(), recipe.peak_lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
    schedule = (
        torch.optim.lr_scheduler.MultiStepLR(sgd, [6, 9])
        if settings
        else torch.optim.lr_scheduler.OneCycleLR(sgd, recipe.peak_lr, total_steps=12)
    )
    x = torch.randn(8, 5, dtype=torch.float64)
    for _ in range(12):
        loss = ours(x).exp().sum()
        descent.step([*torch.autograd.grad(loss, list(ours.parameters())), None])
        sgd.zero_grad()
        theirs(x).exp().sum().backward()
        sgd.step()
        schedule.step()
    torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-12, rtol=0)
    assert torch.equal(left_out, torch.ones(2)), "without a gradient there is no weight decay either"


def test_a_state_of_torchs_optimizer_is_read():
    net = nn.Linear(4, 2)
    sgd = torch.optim.SGD(net.parameters(), 0.1, 0.9)
    net(torch.ones(1, 4))[0, 0].backward()
    net.bias.grad = None
    sgd.step()
    descent = Descent(net.parameters(), RECIPE, 10)
    descent.restore({"optimizer": sgd.state_dict(), "schedule": {"last_epoch": 4}})
    momenta = [descent.optimizer.state[parameter]["momentum_buffer"] for parameter in net.parameters()]
    assert torch.equal(momenta[0], net.weight.grad) and not momenta[1].any()
    assert descent.made == int(descent.progress) == 4


def test_a_training_from_before_numbers_were_counted_goes_on_with_its_own(tmp_path):
    recipe = replace(RECIPE, phases=(Phase(3, Crafting("sampled"), 0.5),))
    trained(tmp_path, epochs=1, recipe=recipe)
    path = tmp_path / "x.resume"
    state = torch.load(path, weights_only=True)
    assert state.pop("counts") is True
    torch.save(state, path)
    now, _ = trained(tmp_path / "now", recipe=recipe)
    earlier, run = trained(tmp_path, recipe=recipe)
    assert len(run.history) == 3 and not torch.equal(earlier.heads[0][-1].weight, now.heads[0][-1].weight)
    assert torch.load(path, weights_only=True)["counts"] is False


def test_earlier_numbers_are_those_of_0_1():
    draws = EarlierDraws(torch.Generator().manual_seed(7), 7, torch.tensor([4, 9]))
    assert draws.offsets(7).tolist() == [[5, 6], [6, 1]]
    noise = draws.noise(torch.tensor([1])).uniform(torch.empty(1, 3), restart=1)
    torch.testing.assert_close(noise, torch.tensor([[0.27746742963790894, 0.8560621738433838, 0.8098251223564148]]))


@pytest.mark.parametrize(("batch_size", "factor"), [(32, 1), (16, 0.5), (64, 2), (128, 4), (512, 8)])
def test_the_learning_rate_grows_with_the_batch_and_then_with_its_root(batch_size, factor):
    recipe = scaled(RECIPE, batch_size)
    assert (recipe.batch_size, recipe.peak_lr) == (batch_size, pytest.approx(factor * RECIPE.peak_lr))
    assert recipe.starts_at == pytest.approx(min(factor, 1) * RECIPE.peak_lr / 25), "the warm-up starts where it did"
    assert replace(recipe, batch_size=32, peak_lr=RECIPE.peak_lr, first_lr=None) == RECIPE


def test_a_scaled_rate_rises_from_the_recipes_own():
    one_cycle, steps = scaled(RECIPE, 128), scaled(replace(RECIPE, schedule="steps", phases=(Phase(50),)), 128)
    rates = Descent([nn.Parameter(torch.zeros(1))], one_cycle, 100)._rates
    assert float(rates[0]) == pytest.approx(RECIPE.peak_lr / 25) and float(rates.max()) == pytest.approx(
        4 * RECIPE.peak_lr, rel=0.01
    )
    rates = Descent([nn.Parameter(torch.zeros(1))], steps, 1000)._rates / RECIPE.peak_lr
    assert rates[[0, 50, 100, 499, 500, 999]].tolist() == pytest.approx([1, 2.5, 4, 4, 0.4, 0.04])


@pytest.mark.parametrize("first_lr", [0.0, -1.0, 0.051])
def test_a_first_rate_above_the_highest_is_refused(first_lr):
    with pytest.raises(InvalidValue, match="at most peak_lr"):
        replace(RECIPE, first_lr=first_lr)


def test_a_gpu_takes_larger_batches_where_enough_updates_are_left():
    assert [roomy(RECIPE, n) for n in (96, 3_200, 5_000, 48_000)] == [32, 64, 96, 128]


def test_another_batch_size_is_another_training(tmp_path):
    trained(tmp_path, epochs=1)
    with pytest.raises(UserError, match="another batch size"):
        trainer(tmp_path, recipe=scaled(RECIPE, 64))


class Gpu:
    """Stands in for a GPU's graphs: what is captured is not done, and done once for each replay."""

    def __init__(self, monkeypatch, capturable=True):
        self.capturable, self.capturing, self.plain, self.captured, self.replayed = capturable, False, 0, 0, []
        gpu = self

        class Graph:
            def replay(self):
                gpu.replayed.append(int(self.held.sum()))

        class Stream:
            def wait_stream(self, other): ...

        @contextmanager
        def graph(into):
            gpu.capturing = into
            try:
                yield
            finally:
                gpu.capturing = False

        @contextmanager
        def stream(_):
            yield

        names = {"CUDAGraph": Graph, "Stream": Stream, "graph": graph, "stream": stream, "current_stream": Stream}
        for name, stand_in in {**names, "synchronize": lambda: None}.items():
            monkeypatch.setattr(replay.torch.cuda, name, stand_in)

    def work(self, numbers):
        if not self.capturing:
            self.plain += 1
        elif not self.capturable:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        else:
            self.captured += 1
            self.capturing.held = numbers


def test_a_gpu_replays_what_it_has_captured(monkeypatch):
    gpu, told = Gpu(monkeypatch), []
    run = Replay(torch.device("cuda"), True, told.append)
    for i in range(PLAIN_FIRST + 2):
        run("a", gpu.work, torch.tensor([i]))
    run("a", gpu.work, torch.tensor([1, 2]))  # a shorter or longer batch starts plainly
    assert (gpu.plain, gpu.captured, gpu.replayed, run.used) == (PLAIN_FIRST + 1, 1, [PLAIN_FIRST, PLAIN_FIRST + 1], True)
    for _ in range(PLAIN_FIRST + 1):
        run("b", gpu.work, torch.tensor([9]))
    assert (gpu.captured, gpu.replayed[-1], told) == (2, 9, [])


def test_what_cannot_be_captured_runs_plainly_and_is_told_once(monkeypatch):
    gpu, told = Gpu(monkeypatch, capturable=False), []
    run = Replay(torch.device("cuda"), True, told.append)
    for i in range(PLAIN_FIRST + 3):
        run("a", gpu.work, torch.tensor([i]))
    assert gpu.plain == PLAIN_FIRST + 3 and not run.used
    assert len(told) == 1 and "(operation not permitted when stream is capturing)" in told[0]


def test_a_cpu_never_captures():
    assert not Replay(torch.device("cpu"), True, print).on and not Replay(torch.device("cuda"), False, print).on
