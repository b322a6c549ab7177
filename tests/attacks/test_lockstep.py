"""Batched runs give what each gives alone, and their queries are answered together."""

import threading
from functools import partial

import pytest
import torch
from pyautoattack import AutoAttack as Package
from torch import nn

from exitbench.attacks import lockstep
from exitbench.attacks.autoattack import AutoAttack
from exitbench.attacks.lockstep import run_batched
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.models.policies import FixedExit
from tests.toys import batch, linear_exits


class Cubes(nn.Module):
    """A network ``(B, D) -> (B, D)`` that cubes each number, so that gradients are known; it records threads and batch sizes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((threading.current_thread(), len(x), torch.is_grad_enabled()))
        return x**3


def random_walk(steps, size):
    """Return a run that draws numbers, queries with and without gradients, and returns all answers."""

    def run(view):
        torch.manual_seed(size)
        told = []
        for _ in range(steps):
            x = torch.rand(size, 2).requires_grad_()
            with torch.no_grad():
                told.append(view(x))
            logits = view(x)
            told += [logits.detach(), torch.autograd.grad(logits.sum(), x)[0] / x.detach() ** 2]
        return torch.stack(told)

    return run


def test_each_run_is_told_what_it_is_told_alone():
    runs = [random_walk(steps, size) for steps, size in ((3, 2), (1, 5), (4, 1))]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    together = run_batched(Cubes(), runs)
    assert torch.equal(torch.get_rng_state(), before)
    for run, found in zip(runs, together, strict=True):
        torch.testing.assert_close(found, run(Cubes()))
        torch.testing.assert_close(found[2::3], torch.full_like(found[2::3], 3.0))  # d x^3 / dx = 3 x^2


def test_each_run_draws_from_a_devices_generator_as_it_would_alone(monkeypatch):
    """A GPU has a generator of its own beside the host's."""
    of_device = torch.Generator()
    monkeypatch.setattr(lockstep, "generators", lambda: [torch.default_generator, of_device])

    def run(view, steps):
        told = []
        for _ in range(steps):
            drawn = torch.cat((torch.rand(2, 2), torch.rand(2, 2, generator=of_device)))
            told.append(view(drawn))
        return torch.cat(told)

    runs = [partial(run, steps=steps) for steps in (3, 1, 4)]
    of_device.manual_seed(3)
    before = of_device.get_state()
    together = run_batched(Cubes(), runs)
    assert torch.equal(of_device.get_state(), before)
    for each, found in zip(runs, together, strict=True):
        random_state = torch.get_rng_state()
        assert torch.equal(found, each(Cubes()))
        torch.set_rng_state(random_state)
        of_device.set_state(before)


def test_a_gpu_has_a_generator_of_its_own(monkeypatch):
    mine = [torch.Generator(), torch.Generator()]
    monkeypatch.setattr(torch.cuda, "default_generators", mine)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for in_use in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda in_use=in_use: in_use)
        assert lockstep.generators() == [torch.default_generator, *mine[1:] * in_use]


def test_backward_passes_of_runs_stay_in_their_threads():
    """In autograd's one thread of a GPU, no run could wait for another."""

    def threads(view):
        x = torch.ones(1, 2).requires_grad_()
        logits = view(x)
        seen = [threading.current_thread()]
        logits.register_hook(lambda gradient: seen.append(threading.current_thread()))
        torch.autograd.grad(logits.sum(), x)
        return torch.autograd.is_multithreading_enabled(), seen[0] is seen[1]

    assert run_batched(Cubes(), [threads, threads]) == [(False, True)] * 2
    assert torch.autograd.is_multithreading_enabled()


def test_runs_may_have_runs_of_their_own():
    def outer(view, size):
        def inner(view):
            x = torch.rand(size, 2).requires_grad_()
            return torch.autograd.grad(view(x).sum(), x)[0] / x.detach() ** 2

        return torch.cat([torch.rand(1, 2), *run_batched(view, [inner, inner])])

    runs = [partial(outer, size=size) for size in (2, 3)]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    view = Cubes()
    for run, found in zip(runs, run_batched(view, runs), strict=True):
        torch.set_rng_state(before)
        assert torch.equal(found, run(Cubes()))
    assert [size for _, size, _ in view.seen] == [10], "one pass for all"


def test_queries_go_through_the_network_together_in_the_callers_thread():
    view = Cubes()
    run_batched(view, [random_walk(3, 2), random_walk(3, 5)])
    assert view.seen == [(threading.current_thread(), 7, with_graph) for _ in range(3) for with_graph in (False, True)]


def test_gradients_can_be_asked_for_twice_or_not_at_all():
    def twice(view):
        x = torch.ones(1, 2).requires_grad_()
        logits = view(x)
        first = torch.autograd.grad(logits[0, 0], x, retain_graph=True)[0]
        return first + torch.autograd.grad(logits[0, 1], x)[0]

    def never(view):
        return view(torch.ones(2, 2).requires_grad_()).detach()

    view = Cubes()
    asked, unasked = run_batched(view, [twice, never])
    assert asked.tolist() == [[3.0, 3.0]] and unasked.tolist() == [[1.0, 1.0]] * 2
    assert [size for _, size, _ in view.seen] == [3, 1], "who asks again has its images sent through again"


def test_a_network_that_lets_its_graph_go_is_asked_for_it_once():
    """Compiled networks refuse to retain the graph."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            assert not torch._C._autograd._get_current_graph_task_keep_graph()
            return 3 * x**2 * gradient

    def early_and_late(wait):
        def run(view):
            x = torch.full((1, 2), 2.0).requires_grad_()
            logits = view(x)
            for _ in range(wait):
                view(torch.ones(1, 2))
            return torch.autograd.grad(logits.sum(), x)[0]

        return run

    found = run_batched(Once.apply, [early_and_late(wait) for wait in (0, 0, 2)])
    assert all(gradient.tolist() == [[12.0, 12.0]] for gradient in found)


def test_what_a_recorded_network_would_have_to_repeat_is_asked_for_first():
    """Each forward pass overwrites what the backward pass of the one before takes."""
    order = []

    class Ordered(Cubes):
        def forward(self, x):
            logits = super().forward(x)
            order.append("forward" if torch.is_grad_enabled() else "plain")
            if logits.requires_grad:
                logits.register_hook(lambda _: order.append("backward"))
            return logits

    def late(view):
        view(torch.ones(1, 2))
        x = torch.ones(1, 2).requires_grad_()
        return torch.autograd.grad(view(x).sum(), x)[0]

    def early(view):
        x = torch.ones(1, 2).requires_grad_()
        found = torch.autograd.grad(view(x).sum(), x)[0]
        view(torch.ones(1, 2))
        return found

    run_batched(Ordered(), [late, early])
    assert order == ["plain", "forward", "backward", "forward", "backward", "plain"]


def test_gradient_mode_is_the_callers():
    def mode(view):
        return torch.is_grad_enabled()

    with torch.no_grad():
        assert run_batched(Cubes(), [mode, mode]) == [False, False]
    assert run_batched(Cubes(), [mode, mode]) == [True, True]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["run", "network"])
@pytest.mark.parametrize("steps", [0, 3, 4])
def test_what_one_raises_ends_all(error, where, steps):
    begun, ended = [], []

    def endless(view):
        begun.append(True)
        try:
            while True:
                x = torch.ones(1, 2).requires_grad_()
                torch.autograd.grad(view(x).sum(), x)
        finally:
            ended.append(True)

    def failing(view):
        for _ in range(steps):
            view(torch.ones(1, 2))
        raise error("told so")

    class Failing(Cubes):
        def forward(self, x):
            if len(self.seen) == steps:
                raise error("told so")
            return super().forward(x)

    before = threading.active_count()
    with pytest.raises(error, match="told so"):
        if where == "run":
            run_batched(Cubes(), [endless, failing, endless])
        else:
            run_batched(Failing(), [endless, endless])
    assert begun == ended != [] and threading.active_count() == before


class RowByRow(nn.Module):
    """A linear layer whose rows are rounded alike in every batch, which matrix products do not promise."""

    def __init__(self, linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x):
        return (x.flatten(1)[:, None] * self.weight).sum(-1) + self.bias


def test_autoattack_finds_the_same_images_for_several_batches_at_once(monkeypatch):
    def fewer_queries(self, version="standard"):
        standard(self, version)
        self.square.n_queries = 200

    standard = Package._set_version
    monkeypatch.setattr(Package, "_set_version", fewer_queries)
    shape = (1, 4, 4)
    net = linear_exits(2, 5, shape, scale=3)
    for head in net.heads:
        head[1] = RowByRow(head[1])
    x, _, noise = batch(4, shape)
    y = net(x)[-1].argmax(-1)
    attack = AutoAttack(ThreatModel("Linf", 0.09), FixedExit(2))
    together = attack(net, x, y, noise=Noise(0, noise.samples, (0, 0, 32, 32)))
    parts = [slice(0, 2), slice(2, 4)]
    alone = [attack(net, x[rows], y[rows], noise=Noise(0, noise.samples[rows])) for rows in parts]
    assert torch.equal(together, torch.cat(alone))
    assert (net(together)[-1].argmax(-1) != y).tolist() == [True, True, False, True]
