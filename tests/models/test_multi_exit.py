import pytest
import torch
from torch import nn

from exitbench.models.multi_exit import MultiExitNet, without_branches
from tests.toys import batch, linear_exits, small_convolutional


def test_a_forward_up_to_an_exit_runs_no_later_stage():
    net = small_convolutional(3)
    ran = []
    for k, stage in enumerate(net.stages):
        stage.register_forward_hook(lambda *_, k=k: ran.append(k))
    x = torch.rand(2, 1, 4, 4)
    logits = net(x, upto=1)
    assert ran == [0, 1]
    assert logits.shape == (2, 2, 5)
    assert torch.equal(logits, net(x)[:2])


def test_stages_and_heads_come_in_pairs():
    with pytest.raises(ValueError, match="one head per stage"):
        MultiExitNet([nn.Identity()], [])


@pytest.mark.parametrize("upto", [-1, 3])
def test_an_exit_that_does_not_exist_is_refused(upto):
    with pytest.raises(ValueError, match="outside"):
        linear_exits(3)(batch()[0], upto=upto)


def test_without_branches_is_the_last_exit():
    net = small_convolutional(3)
    x = torch.rand(2, 1, 4, 4)
    plain = without_branches(net)
    assert plain.n_exits == 1
    assert torch.equal(plain(x)[0], net(x)[-1])
