"""Gates learn to tell where their exits are right, and nothing else of the network changes."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from exitbench.attacks.regions import ThreatModel
from exitbench.data.digits import load_digits
from exitbench.errors import UserError
from exitbench.models.blocks import conv_bn
from exitbench.models.errors import InvalidValue
from exitbench.models.gate_scores import score_of
from exitbench.models.gated import gate_parameters, with_gates, without_gates
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.registry import model_card
from exitbench.training.fits import check_fit
from exitbench.training.loop import Trainer
from exitbench.training.loss import gate_loss
from exitbench.training.make_weights import _start_from
from exitbench.training.recipe import Crafting, Phase, Recipe
from exitbench.training.recipes import named_recipe

GATES = Recipe(
    "rdi_resnet38_gated",
    "digits",
    "gates",
    ThreatModel("Linf", 0.1),
    (Phase(3, Crafting("average"), attacked_share=0.5),),
    batch_size=32,
    peak_lr=0.05,
    optimizer="adam",
    weight_decay=0.0,
    trained="gates",
)


def small() -> MultiExitNet:
    torch.manual_seed(0)
    first = nn.Sequential(*conv_bn(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(*conv_bn(8, 16, 3, padding=1), nn.ReLU())
    return MultiExitNet([first, second], [nn.Sequential(nn.Flatten(), nn.Linear(n, 10)) for n in (128, 256)])


def test_a_gate_is_charged_the_cross_entropy_of_being_right():
    logits = torch.tensor([[[1.0 + math.log(3), -1.0 + math.log(3)]] * 2, [[0.0, 9.0]] * 2], requires_grad=True)
    y = torch.tensor([0, 1])  # the first exit is right on the first sample alone; its score is log 3, probability 3/4
    found = gate_loss(logits, y)
    torch.testing.assert_close(found, torch.tensor((-math.log(0.75) - math.log(0.25)) / 2))
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[1].any(), "the last exit has no gate"
    torch.testing.assert_close(gradient[0, :, 0], gradient[0, :, 1])  # moves the score, not the prediction


def test_gates_alone_are_trained(tmp_path):
    gated = with_gates(small(), [8])
    before = {name: value.clone() for name, value in gated.state_dict().items()}
    split = load_digits("train", (1, 8, 8))
    few = replace(split, images=split.images[:160], labels=split.labels[:160])
    x, y = few.batch(0, 160).x, few.batch(0, 160).y
    with torch.no_grad():
        start = float(gate_loss(gated.eval()(x), y))
    for _ in Trainer(gated, GATES, few, few, 0, tmp_path / "x.resume").epochs():
        pass
    changed = {name for name, value in gated.state_dict().items() if not torch.equal(value, before[name])}
    gates = {name for name, _ in gated.named_parameters() if ".gate." in name}
    assert changed == gates and len(gates) == len(list(gate_parameters(gated))) == 4
    with torch.no_grad():
        assert float(gate_loss(gated.eval()(x), y)) < start


def test_gates_change_no_prediction():
    net, x = small().eval(), torch.rand(5, 1, 8, 8)
    gated = with_gates(net, [8]).eval()
    assert gated.has_gate_scores and not without_gates(gated).has_gate_scores
    torch.testing.assert_close(gated(x).log_softmax(-1), net(x).log_softmax(-1))
    assert torch.equal(without_gates(gated)(x), net(x))
    assert score_of(gated(x)[0]).std() > 0


def test_they_start_from_the_network_that_they_are_added_to():
    recipe = named_recipe("rdi_resnet38_gated-cifar10-gates_fast")
    net, plain = model_card("rdi_resnet38_gated").build().eval(), model_card("rdi_resnet38").build().eval()
    _start_from(net, recipe, recipe.after)
    _start_from(plain, replace(recipe, model="rdi_resnet38"), "max_average_fast")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(without_gates(net)(x), plain(x))
    with pytest.raises(UserError, match="starts from the weights of the training 'resnet38:nothing'"):
        _start_from(net, recipe, "resnet38:nothing")


def test_what_has_no_gates_cannot_have_them_trained():
    with pytest.raises(UserError, match="rdi_smallcnn has no gates to train"):
        check_fit(replace(GATES, model="rdi_smallcnn"))
    with pytest.raises(InvalidValue, match="a loss of their own"):
        replace(GATES, phases=(Phase(1, agreement=1.0),))
    for rule in ("gate", "gate@", "gate:", ":0.5"):
        with pytest.raises(InvalidValue, match="rule is a name and how it is set"):
            replace(GATES, rule=rule)
    with pytest.raises(InvalidValue, match="trained is one of all, gates"):
        replace(GATES, trained="heads")
