"""A step of a search is one pass forward and one backward, and as many further operations on any number of exits."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from exitbench.attacks import adaptive_search, slowdown
from exitbench.attacks.adaptive import Adaptive, Softly
from exitbench.attacks.adaptive_search import Search
from exitbench.attacks.deployed_loss import constraints_at, exit_constraints, expected_failure, expected_margin
from exitbench.attacks.objectives import Margin, Max, Mean, Objective
from exitbench.attacks.pairs import AtPair
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import NORMS, ThreatModel
from exitbench.attacks.slowdown import Slowdown
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import EntropyPolicy, deployed_logits
from exitbench.models.rules.ensemble import VotePolicy
from exitbench.models.rules.patience import PatiencePolicy
from exitbench.models.rules.temperature import Tempered
from tests.toys import batch, linear_exits, small_convolutional

MOST = {"slowdown": 360, "failure": 240, "margin": 240, "at exit": 280, "at pair": 280, "pgd Mean()": 80, "pgd Max()": 80}
"""Bound on the operations of a step that compute something, besides those of the network itself; views cost a GPU nothing."""

VIEWS = "alias as_strided detach expand permute select slice split squeeze t transpose unbind unfold unsqueeze view _unsafe_view"

RULES = {
    "entropy": lambda n: EntropyPolicy((0.9,) * (n - 1)),
    "vote": lambda n: VotePolicy((0.5,) * (n - 1)),
    "patience": lambda _n: PatiencePolicy(2),
    "tempered": lambda n: Tempered(EntropyPolicy((1.0,) * (n - 1)), (0.7,) * n),
}
TIGHT = {norm: ThreatModel(norm, 1e-6) for norm in NORMS}


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ not in VIEWS.split()
        return func(*args, **(kwargs or {}))


def operations(call):
    with Operations() as mode:
        call()
    return mode.count


def per_step(run, few=1, many=3):
    """Operations of an additional step."""
    run(few)  # constants are made the first time
    return (operations(lambda: run(many)) - operations(lambda: run(few))) / (many - few)


def of_network(net, x):
    """Operations of the two passes, as every search needs them."""

    def passes():
        inputs = x.detach().requires_grad_()
        torch.autograd.grad(net(inputs).sum(), inputs)

    return operations(passes)


@pytest.fixture(autouse=True)
def seldom(monkeypatch):
    for module in (adaptive_search, slowdown):
        monkeypatch.setattr(module, "COMPACT_EVERY", {"cpu": 1000})


def searches(net, policy, norm):
    """Each search as a function of its number of steps, on samples that do not break, and how often it ascends."""
    x, _, noise = batch(5)
    y = deployed_logits(net(x), policy)[0].argmax(-1)
    ball, n_exits = TIGHT[norm], net.n_exits

    def ascended(objective, **more):
        return lambda steps: Search(net, ball, policy, x, y, 10**6).ascend(objective, x, steps, last=0.1, **more)

    def slowdown_of(steps):
        return Slowdown(ball, policy, tuple(float(k + 1) for k in range(n_exits)), "keep_label", steps)(net, x, y, noise=noise)

    def at_exit(logits, y, _knob, own):
        return constraints_at(logits, y, policy, own["k"]).tanh().sum(0)

    last = torch.full_like(y, n_exits - 1)
    found = {
        "failure": (ascended(Softly(expected_failure, policy)), 1),
        "margin": (ascended(Softly(expected_margin, policy)), 1),
        "at exit": (ascended(at_exit, own={"k": last}, exits=last), 1),
        "at pair": (ascended(AtPair(policy), own={"k": last, "target": (y + 1) % 3}, exits=last), 1),
        "slowdown": (slowdown_of, 2),
    }
    for over in (Mean(), Max()):
        objective = Objective(Margin(), over)
        found[f"pgd {over}"] = lambda steps, over=objective: PGD(over, ball, steps, 1e-7)(net, x, y, noise=noise), 1
    return found, x


@pytest.mark.parametrize(("rule", "norm"), [*((rule, "Linf") for rule in RULES), ("entropy", "L2")])
def test_operations_of_a_step_are_bounded_and_do_not_grow_with_the_exits(rule, norm):
    counts = {}
    for n_exits in (4, 11):
        torch.manual_seed(0)
        net = linear_exits(n_exits)
        found, x = searches(net, RULES[rule](n_exits), norm)
        counts[n_exits] = {name: per_step(run) / ascents - of_network(net, x) for name, (run, ascents) in found.items()}
    for name, count in counts[4].items():
        assert 0 < counts[11][name] <= count <= MOST[name], name


@pytest.mark.parametrize("aimed", [False, True])
def test_a_step_is_one_pass_each_way_whatever_exits_samples_aim_at(aimed):
    net = small_convolutional(3)
    x, _, _ = batch(9, (1, 4, 4), 5)
    policy = EntropyPolicy((1.5, 1.5))
    y = deployed_logits(net(x), policy)[0].argmax(-1)
    passes = {"forward": 0, "backward": 0}

    def on_forward(_module, _inputs, out):
        passes["forward"] += 1
        if out.requires_grad:
            out.register_hook(lambda _gradient: passes.__setitem__("backward", passes["backward"] + 1))

    search = Search(net, TIGHT["Linf"], policy, x, y, 100)
    handle = net.entry.register_forward_hook(on_forward)
    if aimed:
        Adaptive(TIGHT["Linf"], policy).at_exit(search, x, torch.arange(9) % 3)
    else:
        Adaptive(TIGHT["Linf"], policy).softly(search, expected_margin, x, warm=0.3, last=0.1)
    handle.remove()
    steps = 25 if aimed else 20
    assert passes == {"forward": steps + 1, "backward": steps}


def test_images_leave_the_graph_behind_the_exit_they_aim_at():
    net = small_convolutional(4).double()
    x = batch(10, (1, 4, 4), 5)[0].double()
    k = torch.tensor([3, 3, 2, 2, 2, 1, 0, 0, 0, 0])
    weights = torch.linspace(0.5, 2, 4 * 10 * 5, dtype=torch.float64).view(4, 10, 5)
    reached = (torch.arange(4)[:, None] <= k)[..., None]
    whole, part = (x.clone().requires_grad_() for _ in range(2))
    logits = net.leaving_graph(part, [10, 6, 5, 2])
    torch.testing.assert_close(logits, net(x), rtol=1e-12, atol=1e-14)
    (found,) = torch.autograd.grad((weights * logits).sum(), part)
    (wanted,) = torch.autograd.grad((weights * reached * net(whole)).sum(), whole)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    assert not torch.equal(torch.autograd.grad((weights * net(whole)).sum(), whole)[0], wanted)
    outputs = []
    net.stages[3].register_forward_hook(lambda _module, _inputs, out: outputs.append((len(out), out.requires_grad)))
    net.leaving_graph(part, [10, 6, 5, 2])
    assert outputs == [(2, True), (8, False)], "the others run without a graph"


class InItsOwnWay(MultiExitNet):
    """A network that runs its stages differently."""

    def exits(self, x):
        for logits in super().exits(x):
            yield 2 * logits


def test_a_network_of_ones_own_is_asked_for_its_exits():
    net = small_convolutional(3)
    own = InItsOwnWay(list(net.stages), list(net.heads)).eval()
    x = batch(4, (1, 4, 4), 5)[0].requires_grad_()
    logits = own.leaving_graph(x, [4, 4, 0])
    torch.testing.assert_close(logits, 2 * net(x))
    (found,) = torch.autograd.grad(logits.sum(), x)
    (wanted,) = torch.autograd.grad(2 * net(x)[:2].sum(), x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("rule", RULES)
def test_the_constraints_at_an_exit_are_those_of_all_exits_there(rule):
    logits = 3 * torch.randn(4, 12, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y, k, policy = torch.arange(12) % 5, torch.arange(12) % 4, RULES[rule](4)
    for target in (None, (y + 2) % 5):
        every = exit_constraints(logits, y, policy, 4, target)[:, k, torch.arange(12)]
        here = constraints_at(logits, y, policy, k, target)
        assert torch.equal(here, every[[0, 1, 2, -1]])
