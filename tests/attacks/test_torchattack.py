"""torchattacks' own attacks, by name: parsed without evaluating, seeded, contained, and run on the deployed rule."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torchattacks

from exitbench.attacks import torchattack
from exitbench.attacks.autoattack import AutoAttack
from exitbench.attacks.noise import Noise
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.torchattack import TorchAttack, torch_attack
from exitbench.models.errors import UnknownName
from exitbench.models.policies import EntropyPolicy
from exitbench.models.spec import canonical_json
from exitbench.models.views import DeployedView
from tests.toys import small_convolutional

BALL = ThreatModel("Linf", 0.1)
POLICY = EntropyPolicy((1.45, 1.45))
NET = small_convolutional(3)


def samples(n=5):
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    return x, DeployedView(NET, POLICY)(x).argmax(-1), Noise(0, tuple(range(n)))


def named(text):
    return torch_attack(BALL, POLICY, text)


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        ("PGD", "PGD", ()),
        ("PGD()", "PGD", ()),
        ("PGD(steps=40, alpha=0.01)", "PGD", (("alpha", 0.01), ("steps", 40))),
        ("PGD(alpha=2/255,random_start=False)", "PGD", (("alpha", 2 / 255), ("random_start", False))),
        ("Square(loss='ce')", "Square", (("loss", "ce"),)),
        ("Pixle(x_dimensions=(2,10),y_dimensions=[1,2])", "Pixle", (("x_dimensions", (2, 10)), ("y_dimensions", (1, 2)))),
    ],
)
def test_a_name_with_literals_is_an_attack(text, name, parameters):
    attack = named(text)
    assert attack == TorchAttack(BALL, POLICY, name, parameters)
    assert hash(attack) == hash(named(text))
    assert canonical_json(attack)


def test_the_order_of_parameters_does_not_matter():
    assert named("PGD(steps=4,alpha=0.1)") == named("PGD(alpha=0.1,steps=4)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the form is"),
        ("PGD(", "the form is"),
        ("PGD(40)", "no class name with keyword arguments"),
        ("PGD(**{'steps': 1})", "keyword arguments have names"),
        ("PGD(steps=__import__('os').getpid())", "the form is"),
        ("PGD(steps=x)", "the form is"),
        ("PGD(steps={1: 2})", "is no number, text"),
        ("PGD(alpha=1/0)", "the form is"),
        ("PGD(steps=1,steps=2)", "steps is given twice"),
        ("os.getcwd()", "no class name with keyword arguments"),
        ("PGD(step=40)", "takes no parameter 'step'; it takes alpha, steps, random_start"),
        ("PGD(eps=0.3)", "eps is the evaluation's; set it with --eps"),
        ("PIFGSM(max_epsilon=0.3)", "max_epsilon is the evaluation's; set it with --eps"),
        ("APGD(norm='L2')", "norm is the evaluation's; set it with --norm"),
        ("APGD(seed=1)", "seed is the evaluation's; set it with --seed"),
        ("PGD(model=1)", "model is the evaluation's; set it with --model"),
    ],
)
def test_what_is_no_attack_is_refused(text, message):
    with pytest.raises(ValueError, match="torchattacks") as caught:
        named(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "right"), [("PGDL", "PGDL2"), ("pgdl2", "PGDL2"), ("autoattack", "AutoAttack"), ("PDG", "PGD")]
)
def test_a_wrong_name_brings_suggestions_whatever_its_case(wrong, right):
    with pytest.raises(UnknownName, match=f"did you mean .*'torchattacks:{right}'"):
        named(wrong)


@pytest.mark.parametrize("wrapper", ["MultiAttack", "LGV", "os", "__doc__"])
def test_wrappers_and_other_names_of_the_package_are_no_attacks(wrapper):
    with pytest.raises(UnknownName):
        named(wrapper)


def test_it_is_the_package_s_attack_on_the_deployed_view():
    x, y, noise = samples()
    x_adv = named("PGD(steps=3,alpha=0.03,random_start=False)")(NET, x, y, noise=noise)
    view = DeployedView(NET, POLICY)
    assert torch.equal(x_adv, torchattacks.PGD(view, eps=0.1, alpha=0.03, steps=3, random_start=False)(x, y))
    assert not torch.equal(x_adv, x) and not x_adv.requires_grad


def test_radius_norm_seed_and_classes_are_handed_over_where_they_are_taken(monkeypatch):
    seen = {}

    class Probe(torchattacks.attack.Attack):
        def __init__(self, model, norm, eps, seed, n_classes, other=3):
            super().__init__("Probe", model)
            seen.update(norm=norm, eps=eps, seed=seed, n_classes=n_classes, other=other, device=self.device)

        def forward(self, images, labels):
            return images

    planted(monkeypatch, Probe)
    x, y, noise = samples()
    torch_attack(ThreatModel("L2", 0.5), POLICY, "Probe(other=4)")(NET, x, y, noise=noise)
    seed = noise.integer("torchattacks:Probe")
    assert seen == {"norm": "L2", "eps": 0.5, "seed": seed, "n_classes": 5, "other": 4, "device": torch.device("cpu")}


def planted(monkeypatch, make):
    monkeypatch.setattr(torchattack, "_classes", lambda: {make.__name__: make})


class Draws(torchattacks.attack.Attack):
    """An attack that draws from every global random generator."""

    def __init__(self, model):
        super().__init__("Draws", model)

    def forward(self, images, labels):
        return (images + 0.01 * torch.rand(1) + 0.01 * random.random() + 0.01 * np.random.rand()).float()  # noqa: S311


def test_random_state_is_seeded_by_the_noise_and_does_not_leak(monkeypatch):
    planted(monkeypatch, Draws)
    x, y, noise = samples()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = named("Draws")(NET, x, y, noise=noise)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    torch.manual_seed(9)
    random.seed(9)
    np.random.seed(9)
    assert torch.equal(named("Draws")(NET, x, y, noise=noise), first)
    assert not torch.equal(named("Draws")(NET, x, y, noise=Noise(1, noise.samples)), first)
    assert not NET.training


def test_a_class_that_needs_more_says_so_before_any_work(monkeypatch):
    class Needs(Draws):
        def __init__(self, model, surrogate, eps):
            super().__init__(model)

    planted(monkeypatch, Needs)
    with pytest.raises(ValueError, match=r"torchattacks:Needs needs surrogate: torchattacks:Needs\(surrogate=\.\.\.\)"):
        named("Needs")


def test_targeted_classes_and_those_that_return_no_images_are_errors(monkeypatch):
    class Targeted(Draws):
        def __init__(self, model):
            super().__init__(model)
            self.supported_mode = ["targeted"]

    class Pairs(Draws):
        def forward(self, images, labels):
            return images, labels

    x, y, noise = samples()
    planted(monkeypatch, Targeted)
    with pytest.raises(ValueError, match="no untargeted mode"):
        named("Targeted")(NET, x, y, noise=noise)
    planted(monkeypatch, Pairs)
    with pytest.raises(TypeError, match="returned tuple, not images"):
        named("Pairs")(NET, x, y, noise=noise)


def test_the_package_s_autoattack_is_not_the_real_one():
    attack = named("AutoAttack")
    assert attack.implementation.startswith("torchattacks ")
    assert AutoAttack(BALL, POLICY).implementation.startswith("pyautoattack ")
    assert attack != AutoAttack(BALL, POLICY)
