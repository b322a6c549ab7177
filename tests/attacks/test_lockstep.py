"""Batched runs give what each gives alone, and their queries are answered together."""

import threading

import pytest
import torch
from torch import nn

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


def test_autoattack_finds_the_same_images_for_several_batches_at_once():
    shape = (1, 4, 4)
    net = linear_exits(2, 5, shape, scale=3)
    x, _, noise = batch(4, shape)
    y = net(x)[-1].argmax(-1)
    attack = AutoAttack(ThreatModel("Linf", 0.09), FixedExit(2))
    together = attack(net, x, y, noise=Noise(0, noise.samples, (0, 0, 32, 32)))
    parts = [slice(0, 2), slice(2, 4)]
    alone = [attack(net, x[rows], y[rows], noise=Noise(0, noise.samples[rows])) for rows in parts]
    torch.testing.assert_close(together, torch.cat(alone))
    assert (net(together)[-1].argmax(-1) != y).tolist() == [True, True, False, True]
