"""Every configuration of the search model computes the same function up to rounding, with the same exits and counts."""

import pytest
import torch
from torch import nn

from exitbench.attacks.gradient import value_and_gradient
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.models.early_exit import EarlyExitNet
from exitbench.models.foreign import ForeignNet
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.policies import EntropyPolicy
from exitbench.models.search_model import FOLDED, PLAIN, SearchConfig, build_search_model, search_configs
from exitbench.runner.passes import counted

HALF = SearchConfig(precision="bf16")


def normalised() -> MultiExitNet:
    torch.manual_seed(3)

    def stage(channels: int) -> nn.Module:
        norm = nn.BatchNorm2d(6)
        nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        return nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1, bias=False), norm, nn.ReLU())

    heads = [nn.Sequential(nn.Flatten(), nn.Linear(96, 5)) for _ in range(2)]
    return MultiExitNet([stage(1), stage(6)], heads).eval().requires_grad_(False)


NET = normalised()
X = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_what_is_cut_into_stages_has_every_form_and_what_is_run_whole_one():
    assert [str(config) for config in search_configs(NET)] == [
        "plain fp32",
        "folded fp32",
        "folded bf16",
        "folded fp32 compiled",
        "folded bf16 compiled",
    ]
    whole = ForeignNet(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4))
    assert search_configs(whole) == [PLAIN]
    with pytest.raises(ValueError, match="has no search model in the configuration folded bf16; it has plain fp32"):
        build_search_model(whole, HALF)
    assert build_search_model(NET, PLAIN) is NET


def test_a_subclass_keeps_its_own_way_to_run():
    class Own(MultiExitNet):
        def exits(self, x):
            for logits in super().exits(x):
                yield 2 * logits

    own = Own(list(NET.stages), list(NET.heads)).eval()
    assert search_configs(own) == [PLAIN, FOLDED]
    torch.testing.assert_close(build_search_model(own, FOLDED)(X), own(X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("config", "tolerance"), [(FOLDED, 1e-5), (HALF, 0.05)])
def test_a_twin_is_the_same_function_up_to_its_rounding(config, tolerance):
    before = {name: tensor.clone() for name, tensor in NET.state_dict().items()}
    search_model = build_search_model(NET, config)
    logits = search_model(X)
    assert logits.dtype == torch.float32 and not any(weight.requires_grad for weight in search_model.parameters())
    torch.testing.assert_close(logits, NET(X), atol=tolerance, rtol=tolerance)
    assert all(torch.equal(tensor, before[name]) for name, tensor in NET.state_dict().items()), "the network is left as it is"
    policy = EntropyPolicy((1.5,))
    torch.testing.assert_close(
        search_model.deployed(X, policy), EarlyExitNet.deployed(search_model, X, policy), atol=0.05, rtol=0.05
    )


def test_bf16_computes_in_bf16_and_gives_fp32_gradients():
    search_model = build_search_model(NET, HALF)
    assert {weight.dtype for weight in search_model.parameters()} == {torch.bfloat16}
    assert not torch.equal(search_model(X), NET(X)), "the rounding must be there"
    _, gradient = value_and_gradient(search_model, Objective(CE(), Mean()), X, torch.zeros(7, dtype=torch.int64))
    _, exact = value_and_gradient(NET, Objective(CE(), Mean()), X, torch.zeros(7, dtype=torch.int64))
    assert gradient.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > 0.99


def test_passes_are_counted_and_later_stages_left_out():
    search_model = build_search_model(NET, HALF)
    with counted(search_model) as passes:
        value_and_gradient(search_model, Objective(CE(), Mean()), X, torch.zeros(7, dtype=torch.int64))
    assert (passes.forwards, passes.backwards) == (7, 7)
    seen = []
    handle = search_model.stages[1].register_forward_hook(lambda *_: seen.append(1))
    search_model(X, upto=0)
    handle.remove()
    assert not seen
