"""Code that is not ours gets copies of images, and leaves no trace in torch's global state."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from exitbench.attacks.base import Attack
from exitbench.attacks.clean import Clean
from exitbench.attacks.noise import Noise
from exitbench.models.factory import find_factory
from exitbench.models.foreign import ForeignNet
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.user_code import contained

SHAPE = (1, 4, 4)

WRITES = {
    "subtracts": lambda x: x.sub_(0.5).div_(0.5),
    "clamps": lambda x: x.clamp_(0.4, 0.5),
    "indexes": lambda x: x.__setitem__(slice(None), 0.3) or x,
    "fills": lambda x: x.mul_(0).add_(1),
    "rectifies": lambda x: nn.functional.relu(x.sub_(0.5), inplace=True),
}

CHANGES = {
    "gradient mode": lambda: torch.set_grad_enabled(False),
    "default type": lambda: torch.set_default_dtype(torch.float64),
    "deterministic": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "seed": lambda: torch.manual_seed(99),
    "default device": lambda: torch.set_default_device("meta"),
    "random": lambda: random.seed(99),
    "numpy": lambda: np.random.seed(99),
}
IN_FORWARDS = sorted(CHANGES.keys() - {"random", "numpy", "default device"})


def state():
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        str(torch.get_default_device()),
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        np.random.get_state()[1].tobytes(),
    )


@pytest.fixture(autouse=True)
def restored():
    """Whatever a test finds wrong reaches no other."""
    before = (torch.get_num_threads(), torch.get_float32_matmul_precision())
    yield
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(before[0])
    torch.set_float32_matmul_precision(before[1])
    torch.set_default_device(None)


class Doing(nn.Module):
    """A layer that does something to its images, or to torch."""

    def __init__(self, does):
        super().__init__()
        self.does = does

    def forward(self, x):
        found = self.does(x)
        return found if isinstance(found, torch.Tensor) else x


class Whole(nn.Module):
    def __init__(self, does):
        super().__init__()
        self.first, self.head = Doing(does), nn.Linear(16, 5)

    def forward(self, x):
        features = self.first(x).flatten(1)
        return [self.head(features), 2 * self.head(features)]


class Derived(MultiExitNet):
    def exits(self, x):
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            yield head(x)


def networks(does):
    def heads():
        return [nn.Sequential(nn.Flatten(), nn.Linear(16, 5)) for _ in range(2)]

    stages = [Doing(does), nn.Identity()]
    return {
        "run whole": ForeignNet(Whole(does), SHAPE),
        "of our class": MultiExitNet(stages, heads()).eval(),
        "of a class derived from ours": Derived(stages, heads()).eval(),
    }


def calls(model):
    from exitbench.models.policies import EntropyPolicy
    from exitbench.models.views import DeployedView, ExitView

    return {
        "forward": model,
        "exit by exit": lambda x: torch.stack(list(model.exits(x))),
        "deployed": DeployedView(model, EntropyPolicy((1.0,))),
        "a view of an exit": ExitView(model, 2),
    }


KINDS = ["run whole", "of our class", "of a class derived from ours"]
CALLS = ["forward", "exit by exit", "deployed", "a view of an exit"]
CHOSEN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(write=st.sampled_from(sorted(WRITES)), kind=st.sampled_from(KINDS), call=st.sampled_from(CALLS), gradients=st.booleans())
@CHOSEN
def test_no_network_writes_into_our_images(write, kind, call, gradients):
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_(gradients)
    before = x.detach().clone()
    logits = calls(networks(WRITES[write])[kind])[call](x)
    assert torch.equal(x.detach(), before)
    if gradients:
        (gradient,) = torch.autograd.grad(logits.sum(), x)
        assert gradient.shape == x.shape


@given(change=st.sampled_from(IN_FORWARDS), kind=st.sampled_from(KINDS), call=st.sampled_from(CALLS))
@CHOSEN
def test_no_forward_changes_torchs_state(change, kind, call):
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    model = networks(lambda x: x)[kind]
    for layer in model.modules():
        if isinstance(layer, Doing):
            layer.does = lambda _: CHANGES[change]() and None
    before = state()
    calls(model)[call](x)
    assert state() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_draws_random_numbers_stays_random_and_takes_none_of_ours(kind):
    model = networks(lambda x: x + 0.1 * torch.rand_like(x))[kind]
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    found = [model(x) for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


SOURCE = """
import random
import numpy as np
import torch
from torch import nn
{top}
def make():
    {inside}
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
IN_SOURCE = {
    "gradient mode": "torch.set_grad_enabled(False)",
    "default type": "torch.set_default_dtype(torch.float64)",
    "deterministic": "torch.use_deterministic_algorithms(True)",
    "precision": 'torch.set_float32_matmul_precision("medium")',
    "threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "seed": "torch.manual_seed(99)",
    "default device": 'torch.set_default_device("meta")',
    "random": "random.seed(99)",
    "numpy": "np.random.seed(99)",
}


@pytest.mark.parametrize("change", sorted(IN_SOURCE))
@pytest.mark.parametrize("place", ["import", "factory"])
def test_no_users_file_changes_torchs_state(change, place, tmp_path):
    text = IN_SOURCE[change]
    top, inside = (text, "pass") if place == "import" else ("", text)
    (tmp_path / "net.py").write_text(SOURCE.format(top=top, inside=inside))
    before = state()
    find_factory(f"{tmp_path}/net.py:make").build()
    assert state() == before


@pytest.mark.parametrize("line", ["torch.set_grad_enabled(False)", "torch.set_default_dtype(torch.float64)"])
def test_a_file_that_turns_gradients_off_is_evaluated(line, bench, tmp_path):
    (tmp_path / "net.py").write_text(SOURCE.format(top=line, inside="pass"))
    run = ["--dataset", "digits", "--n", "6", "--steps", "3", "--policy", "exit:1", "--attack", "single:1"]
    code, out, err = bench("run", "--model", "net.py:make", *run)
    assert code == 0 and "missing gradients" not in out + err, (out, err)


def test_what_the_caller_set_is_not_what_we_compute_with(tmp_path):
    import exitbench

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).eval()
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % 5
    asked = {"dataset": (images, labels), "attacks": "single:1", "steps": 3, "eps": 0.1, "progress": False}
    plain = exitbench.evaluate(net, **asked)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    before = state()
    other = exitbench.evaluate(net, **asked)
    assert state() == before
    assert plain.samples.equals(other.samples) and plain.worst_case == other.worst_case


@dataclass(frozen=True)
class Rude(Attack):
    """Writes into all that it is given, and changes all of torch's state."""

    def generate(self, model, x, y, *, noise, candidates):
        found = x.clone()
        x.zero_()
        y.zero_()
        for change in CHANGES.values():
            change()
        return found


@dataclass(frozen=True)
class TwoRude(Attack):
    @property
    def children(self):
        return (Rude(), Clean())

    def generate(self, model, x, y, *, noise, candidates):
        return candidates[1]


def test_no_attack_changes_torchs_state_or_our_images(tmp_path):
    from exitbench.runner.generate import Work, generate
    from exitbench.store.store import Store
    from tests.bench import evaluated

    ready = evaluated.prepared(n=8)
    (part, *_) = (cell.slice for cell in evaluated.plan_of(ready, Store(tmp_path), ["single"]).cells)
    work = Work.on(part, torch.device("cpu"))
    x, y, before = work.x.clone(), work.y.clone(), state()
    generate(Rude(), ready.target.model, [work], 0)
    assert state() == before and torch.equal(work.x, x) and torch.equal(work.y, y)
    with contained():
        found = TwoRude()(ready.target.model, x, y, noise=Noise(0, tuple(range(8))))
    assert torch.equal(found, work.x) and state() == before
