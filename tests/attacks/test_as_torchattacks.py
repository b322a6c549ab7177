"""Attacks behind torchattacks' interface give the same images as the attacks themselves."""

from __future__ import annotations

import inspect

import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from exitbench.attacks import as_torchattacks
from exitbench.attacks.as_torchattacks import Adaptive, Average, MultiExitAttack, SingleExit, content_noise, deployed_view
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective, TargetedDLR
from exitbench.attacks.pgd import PGD
from exitbench.attacks.presets import attack_texts, expand
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.models.calibration import equal_share
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import EntropyPolicy, FixedExit
from exitbench.models.views import DeployedView
from exitbench.runner.passes import counted
from tests.toys import batch, linear_exits, small_convolutional

EPS = 0.1
COSTS = (1.0, 2.0, 4.0)
NET = small_convolutional(3)
POLICY = equal_share(NET(torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(4))))
PRECISE = small_convolutional(3).double()  # the last bit of a float32 gradient may flip a step
GRADIENT_FORMS = ("Average", "Maximum", "MaxAverage", "AverageMax", "Adaptive")


def images(n=6, seed=3):
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return x, NET(x)[-1].argmax(-1)


def fragile():
    """A net and images that a small ball breaks everywhere, so that strong attacks are soon done."""
    x, _, _ = batch(4, (1, 4, 4))
    return linear_exits(2, 5, (1, 4, 4), scale=30), x


def forms():
    """The concrete classes, by the form that each stands for."""
    classes = [cls for _, cls in inspect.getmembers(as_torchattacks, inspect.isclass)]
    return {cls.form: cls for cls in classes if issubclass(cls, MultiExitAttack) and hasattr(cls, "form")}


def make(cls, model=NET, **more):
    own = {"policy": POLICY, "seed": 5}
    if not cls.ignored:
        own |= {"steps": 3, "alpha": 0.04}
    elif cls is Adaptive:
        own |= {"steps": 60}
    given = {**own, **more}
    if cls.form.startswith("slowdown"):
        given["costs"] = COSTS
    return cls(model, 2, EPS, **given) if cls is SingleExit else cls(model, EPS, **given)


def native(name, **more):
    settings = AttackSettings(ThreatModel("Linf", EPS), steps=3, step_size=0.04, budget=60, **more)
    (attack,) = expand([name], Deployment(3, POLICY, COSTS), settings)[0].values()
    return attack


def test_every_form_of_ours_has_its_class():
    of_exits = {name.removesuffix(":k").removesuffix(":each") for name in attack_texts()}
    assert set(forms()) == of_exits - {"torchattacks:NAME", "slowdown"}


@pytest.mark.parametrize("form", [form for form in forms() if form not in ("autoattack", "cascade")])
def test_the_images_are_those_of_our_attack(form):
    x, y = images()
    atk = make(forms()[form], policy=POLICY)
    expected = native("single:2" if form == "single" else form)(NET, x, y, noise=content_noise(x, 5))
    x_adv = atk(x, y)
    assert torch.equal(x_adv, expected)
    assert not x_adv.requires_grad and x_adv.dtype == torch.float32
    assert (x_adv - x).abs().max() <= EPS + 1e-6 and 0 <= x_adv.min() <= x_adv.max() <= 1
    assert not torch.equal(x_adv, x)


def test_autoattack_is_the_real_one():
    net, x = fragile()
    y = net(x)[-1].argmax(-1)
    atk = as_torchattacks.AutoAttack(net, EPS, policy=FixedExit(2), k=2, seed=5)
    x_adv = atk(x, y)
    (attack,) = expand(
        ["autoattack:2"], Deployment(2, FixedExit(2)), AttackSettings(ThreatModel("Linf", EPS), steps=1, step_size=0.1)
    )[0].values()
    assert torch.equal(x_adv, attack(net, x, y, noise=content_noise(x, 5)))
    assert (net(x_adv)[-1].argmax(-1) != y).all()
    assert atk.native.implementation.startswith("pyautoattack")


def test_the_cascade_breaks_what_can_be_broken():
    net, x = fragile()
    y = net(x)[-1].argmax(-1)
    atk = as_torchattacks.Cascade(net, EPS, policy=FixedExit(2))
    assert (net(atk(x, y))[-1].argmax(-1) != y).all()


@pytest.mark.parametrize(
    "more", [{"method": "fgsm"}, {"method": "apgd"}, {"method": "apgd", "loss": TargetedDLR()}, {"method": "wrm", "gamma": 5.0}]
)
def test_methods_are_options(more):
    x, y = images()
    assert torch.equal(make(Average, **more)(x, y), native("average", **more)(NET, x, y, noise=content_noise(x, 5)))


def test_l2_is_an_option():
    x, y = images()
    far = make(Average, norm="L2")(x, y) - x
    assert far.flatten(1).norm(dim=1).max() <= EPS + 1e-5


@given(st.permutations(range(6)), st.integers(1, 5))
def test_neither_order_nor_batches_change_an_image(order, cut):
    x, y = images()
    x = x.double()
    attack = PGD(Objective(CE(), Mean()), ThreatModel("Linf", EPS), steps=3, step_size=0.04)
    atk = MultiExitAttack(PRECISE, attack, POLICY, seed=5)
    rows = torch.tensor(order)
    mixed = torch.cat([atk(x[rows[:cut]], y[rows[:cut]]), atk(x[rows[cut:]], y[rows[cut:]])])
    torch.testing.assert_close(mixed, atk(x, y)[rows], rtol=0, atol=1e-12)


def test_seeds_differ_and_the_global_random_state_does_not_matter():
    x, y = images()
    torch.manual_seed(1)
    first = make(Average)(x, y)
    torch.manual_seed(2)
    assert torch.equal(make(Average)(x, y), first)
    assert not torch.equal(make(Average, seed=6)(x, y), first)
    assert len(set(content_noise(x, 0).samples)) == len(x)


def test_labels_of_any_integer_type_do():
    x, y = images()
    assert torch.equal(make(Average)(x, y.int()), make(Average)(x, y))
    with pytest.raises(ValueError, match="images and labels"):
        make(Average)(x)


def test_inputs_stay_as_they_were():
    x, y = images()
    before = x.clone(), y.clone()
    make(Adaptive)(x, y)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])


def test_only_the_default_mode_is_supported():
    atk = make(Average)
    assert atk.get_mode() == "default" and atk.supported_mode == ["default"]
    for switch in (atk.set_mode_targeted_by_label, atk.set_mode_targeted_random, atk.set_mode_targeted_least_likely):
        with pytest.raises(ValueError, match="Average breaks a label and aims at none"):
            switch()
    with pytest.raises(ValueError, match="aims at none"):
        atk.set_mode_targeted_by_function(lambda x, y: y + 1)
    atk.set_mode_default()
    assert atk.get_mode() == "default"


def with_normalisation(net, mean, std):
    """A net that takes normalised inputs and computes what ``net`` does on the pixels."""

    class Undo(nn.Module):
        def forward(self, x):
            return x * std + mean

    return MultiExitNet([nn.Sequential(Undo(), net.stages[0]), *net.stages[1:]], list(net.heads)).eval()


def test_normalised_inputs_are_attacked_as_pixels():
    x, y = images()
    mean, std = 0.25, 0.5  # powers of two: exact
    atk = make(Average, with_normalisation(NET, mean, std))
    atk.set_normalization_used([mean], [std])
    x_adv = atk((x - mean) / std, y) * std + mean
    torch.testing.assert_close(x_adv, make(Average)(x, y), rtol=0, atol=1e-6)
    assert (x_adv - x).abs().max() <= EPS + 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_the_network_s_mode_is_put_back(training):
    net = with_dropout()
    atk = make(Average, net)
    x, y = images()
    net.train(training)
    seen = []
    net.heads[0].register_forward_hook(lambda module, *_: seen.append(module.training))
    atk(x, y)
    assert net.training is training and net.heads[0].training is training
    assert seen and not any(seen)
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    atk.save(loader, verbose=False)
    assert net.training is training and net.heads[0].training is training


def with_dropout():
    net = small_convolutional(3)
    net.heads[0] = nn.Sequential(*net.heads[0], nn.Dropout(0.5))
    return net


def test_training_mode_is_the_caller_s_choice():
    net = with_dropout()
    atk = make(Average, net)
    atk.set_model_training_mode(model_training=True, dropout_training=True)
    seen = []
    net.heads[0][-1].register_forward_hook(lambda module, *_: seen.append(module.training))
    atk(*images())
    assert seen and all(seen)


def test_a_view_is_in_the_mode_of_its_network():
    """Otherwise the package would put an evaluated network into training mode after its own attacks."""
    net = with_dropout()
    view = DeployedView(net, POLICY)
    torchattacks.PGD(view, eps=EPS, steps=1)(*images())
    assert not net.training and not net.heads[0][-1].training


def test_it_works_in_a_multi_attack_beside_the_package_s_own(capsys):
    net, x = fragile()
    view = DeployedView(net, FixedExit(2))
    y = view(x).argmax(-1)
    ours, theirs = Adaptive(view, EPS), torchattacks.PGD(view, eps=EPS, steps=1)
    both = torchattacks.MultiAttack([theirs, ours])
    torch.manual_seed(0)
    x_adv = both(x, y)
    broken = view(x_adv).argmax(-1) != y
    alone = view(ours(x, y)).argmax(-1) != y
    assert alone.any() and bool((broken | ~alone).all())
    assert (x_adv - x).abs().max() <= EPS + 1e-6


def test_save_writes_the_images_and_the_deployed_accuracy(tmp_path, capsys):
    x, y = images(10)
    atk = make(Average)
    path = tmp_path / "adversarial.pt"
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    accuracy, _, _ = atk.save(loader, save_path=path, return_verbose=True, save_predictions=True)
    saved = torch.load(path)
    expected = torch.cat([atk(*batch) for batch in loader])
    assert torch.equal(saved["adv_inputs"], expected)
    deployed = DeployedView(NET, POLICY)(expected).argmax(-1)
    assert torch.equal(saved["preds"], deployed)
    assert accuracy == pytest.approx(100 * (deployed == y).float().mean().item())
    assert "Robust accuracy" in capsys.readouterr().out


def test_the_device_is_found_and_can_be_set():
    atk = make(Average)
    assert atk.device == torch.device("cpu")
    atk.set_device(torch.device("cpu"))
    assert "Average(" in repr(atk) and "attack_mode=default" in repr(atk)


def test_any_of_our_attacks_can_be_wrapped():
    x, y = images()
    attack = native("max")
    atk = MultiExitAttack(NET, attack, POLICY, seed=1)
    assert torch.equal(atk(x, y), attack(NET, x, y, noise=content_noise(x, 1)))
    assert isinstance(content_noise(x, 1), Noise) and atk.attack == "PGD"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="say which rule is deployed"):
        Average(NET)
    with pytest.raises(TypeError, match="not Linear"):
        Average(nn.Linear(2, 2), policy=POLICY)
    with pytest.raises(ValueError, match="needs 2 thresholds"):
        Average(NET, policy=EntropyPolicy((0.1,)))
    with pytest.raises(ValueError, match="leave one out"):
        Average(DeployedView(NET, POLICY), policy=FixedExit(1))
    with pytest.raises(ValueError, match=r"exits are 1\.\.3"):
        SingleExit(NET, 4, policy=POLICY)
    assert deployed_view(DeployedView(NET, POLICY), POLICY).policy == POLICY


@pytest.mark.parametrize("form", ["adaptive", "autoattack", "slowdown:free"])
def test_what_a_form_has_no_use_for_is_refused_not_ignored(form):
    with pytest.raises(ValueError, match="sets its own alpha"):
        make(forms()[form], alpha=0.01)


def test_steps_bound_the_policy_attacks_gradients():
    x, y = images()
    one = Adaptive(NET, EPS, steps=1, policy=POLICY)
    assert one.native.budget == 1
    with counted(NET) as passes:
        one(x, y)
    assert passes.backwards <= len(x)
