"""Networks of the user's own behind ``EarlyExitNet``: the outputs they may have, and their costs."""

import pytest
import torch
from torch import nn

from exitbench.models.calibration import equal_share
from exitbench.models.cost import measure_costs
from exitbench.models.foreign import ForeignModelError, ForeignNet
from exitbench.models.registry import model_card
from exitbench.models.views import DeployedView, ExitView
from tests.toys import small_convolutional

SHAPE = (1, 4, 4)
OURS = small_convolutional(3)


class Whole(nn.Module):
    """The toy network without its interface; ``form`` converts its logits to the output."""

    def __init__(self, form=list, net=OURS):
        super().__init__()
        self.inner, self.form = net, form

    def forward(self, x):
        return self.form(self.inner(x))


FORMS = {
    "list": lambda logits: [*logits],
    "tuple": lambda logits: (*logits,),
    "stacked": lambda logits: logits,
    "half precision": lambda logits: logits.half(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_form_is_the_same_network(form, size):
    x = torch.rand(size, *SHAPE)
    net = ForeignNet(Whole(FORMS[form]), SHAPE)
    close = {"atol": 1e-2, "rtol": 1e-2} if form == "half precision" else {"atol": 0.0, "rtol": 0.0}
    assert (net.n_exits, net.n_classes) == (3, 5)
    torch.testing.assert_close(net(x), OURS(x), **close)
    for k in range(3):
        torch.testing.assert_close(net(x, upto=k), OURS(x, upto=k), **close)
        torch.testing.assert_close(ExitView(net, k + 1)(x), OURS(x)[k], **close)
    torch.testing.assert_close(torch.stack(list(net.exits(x))), OURS(x), **close)
    assert net(x).dtype == torch.float32


def test_one_tensor_is_one_exit():
    net = ForeignNet(Whole(lambda logits: logits[-1]), SHAPE)
    x = torch.rand(4, *SHAPE)
    assert net.n_exits == 1
    torch.testing.assert_close(net(x), OURS(x)[-1:])


def test_the_deployed_view_and_its_gradient_are_those_of_the_net_that_can_be_cut():
    x = torch.rand(16, *SHAPE, dtype=torch.float64)
    ours = small_convolutional(3).double()
    net = ForeignNet(Whole(net=small_convolutional(3)), SHAPE).double()
    policy = equal_share(ours(x))
    assert len(policy(ours(x)).unique()) == 3
    found = []
    for each in (ours, net):
        image = x.clone().requires_grad_()
        logits = DeployedView(each, policy)(image)
        found.append((logits, *torch.autograd.grad(logits.square().sum(), image)))
    torch.testing.assert_close(found[0], found[1])


def test_images_reach_foreign_code_rows_after_rows():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(27, 3)

        def forward(self, x):
            return self.layer(x.view(len(x), -1))

    net = ForeignNet(Viewing(), (3, 3, 3))
    x = torch.rand(2, 3, 3, 3).to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x), net(x.contiguous()))
    assert net.placed(torch.device("cpu"))(x).shape == (1, 2, 3)


REFUSED = {
    "nothing": (lambda logits: None, "returns NoneType"),
    "no exit": (lambda logits: [], "an empty list"),
    "logits and features": (lambda logits: (logits[0], logits[0][:, :2]), r"\(3, 5\), \(3, 2\).*no features"),
    "logits and nothing": (lambda logits: (logits[0], None), "item 2 .* NoneType"),
    "a list of stacks": (lambda logits: [logits, logits], "tensors of shapes"),
    "exits behind the batch": (lambda logits: logits.transpose(0, 1), r"return logits.transpose\(0, 1\)"),
    "squeezed": (lambda logits: logits[0].squeeze(0), "no squeeze"),
    "four dimensions": (lambda logits: logits[None], "shape"),
    "predictions": (lambda logits: logits.argmax(-1)[..., None], "predictions"),
    "as many exits as images": (lambda logits: [logits[0]] * logits.shape[1], "other outputs for batches"),
    "an error": (lambda logits: logits[7], "cannot run a batch of 3 images of 1x4x4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_outputs_are_refused_with_what_was_found(case):
    form, message = REFUSED[case]
    with pytest.raises(ForeignModelError, match=message):
        ForeignNet(Whole(form), SHAPE)


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ForeignModelError, match="no parameters"):
        ForeignNet(nn.Flatten(), SHAPE)


def test_outputs_that_change_later_are_noticed():
    shown = {"exits": 3}
    net = ForeignNet(Whole(lambda logits: [*logits][: shown["exits"]]), SHAPE)
    shown["exits"] = 2
    with pytest.raises(ForeignModelError, match="returned 2 exits, at first it had 3"):
        net(torch.rand(2, *SHAPE))


@pytest.mark.parametrize("name", ["rdi_smallcnn", "rdi_resnet38"])
@pytest.mark.parametrize("form", ["list", "stacked"])
def test_costs_are_those_of_the_net_that_can_be_cut(name, form):
    card = model_card(name)
    net = card.build().eval()
    ours, theirs = (
        measure_costs(net, card.input_shape),
        measure_costs(ForeignNet(Whole(FORMS[form], net), card.input_shape), card.input_shape),
    )
    assert theirs.mmacs == pytest.approx(ours.mmacs, rel=1e-3)
    assert theirs.mflops_paper == pytest.approx(ours.mflops_paper, rel=1e-3)
    assert theirs.note is None


def test_no_statistics_change_when_costs_are_measured():
    inner = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3)).train()
    net = ForeignNet(inner, SHAPE)
    before = inner[0].running_mean.clone()
    measure_costs(net, SHAPE)
    net(torch.rand(4, *SHAPE))
    assert torch.equal(inner[0].running_mean, before) and not inner.training


def declaring(costs, form=list):
    net = Whole(form)
    net.exit_costs = costs
    return net


def test_declared_costs_are_believed_and_said():
    costs = measure_costs(ForeignNet(declaring([1, 2.5, 2.5]), SHAPE), SHAPE)
    assert costs.mmacs == (1.0, 2.5, 2.5)
    assert "declared" in costs.note


@pytest.mark.parametrize("bad", [[1, 2], [1, 3, 2], [0, 1, 2], [1, 2, float("nan")], ["a", "b", "c"], 3])
def test_declared_costs_that_make_no_sense_are_refused(bad):
    with pytest.raises(ForeignModelError, match="exit_costs"):
        ForeignNet(declaring(bad), SHAPE)


def test_what_cannot_be_told_apart_costs_the_whole_network_and_says_so():
    net = ForeignNet(Whole(lambda logits: logits.cumsum(0)), SHAPE)
    whole = measure_costs(OURS, SHAPE)
    costs = measure_costs(net, SHAPE)
    assert costs.mmacs == pytest.approx((whole.mmacs[-1],) * 3)
    assert "charged the whole network" in costs.note


def test_what_cannot_be_traced_costs_the_whole_network_and_says_so():
    """The second exit takes a way around the tracer."""
    net = ForeignNet(Whole(lambda logits: [logits[0], torch.from_numpy(logits[1].detach().numpy()), logits[2]]), SHAPE)
    costs = measure_costs(net, SHAPE)
    assert len(set(costs.mmacs)) == 1 and "charged the whole network" in costs.note


def test_a_network_that_multiplies_nothing_must_declare_its_costs():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.by = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.by * x.flatten(1)

    with pytest.raises(ValueError, match="give it exit_costs"):
        measure_costs(ForeignNet(Scale(), SHAPE), SHAPE)


def test_behind_torchattacks_interface_it_is_attacked_like_the_net_that_can_be_cut():
    from exitbench.attacks.as_torchattacks import Adaptive

    x = torch.rand(6, *SHAPE, dtype=torch.float64)
    ours = small_convolutional(3).double()
    y, policy = ours(x)[-1].argmax(-1), equal_share(ours(x))
    found = []
    for net in (ours, ForeignNet(Whole(net=small_convolutional(3)), SHAPE).double()):
        attack = Adaptive(net, eps=0.1, steps=12, policy=policy)
        attack.set_normalization_used(mean=[0.4], std=[0.5])
        found.append(attack((x - 0.4) / 0.5, y))
    torch.testing.assert_close(found[0], found[1])
