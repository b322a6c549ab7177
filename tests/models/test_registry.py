"""Conformance tests of every registered model."""

import pytest
import torch

from exitbench.models.cost import measure_costs
from exitbench.models.errors import UnknownName
from exitbench.models.multi_exit import MultiExitNet
from exitbench.models.papers import Paper
from exitbench.models.registry import model_card, model_names, register
from exitbench.models.views import DeployedView, ExitView

EXPECTED = {
    *("rdi_smallcnn", "smallcnn", "rdi_mobilenetv2", "rdi_mobilenetv2_075", "mobilenetv2", "mobilenetv2_075"),
    *("resnet38_075", "rdi_resnet38_gated"),
    *(f"{kind}resnet{depth}" for kind in ("rdi_", "") for depth in (38, 74, 110, 152)),
    *("msdnet", "msdnet21", "msdnet_anytime", "msdnet_anytime7", "msdnet_whole", "vit_exits", "vit_whole"),
    *("sdn_resnet56", "sdn_vgg16", "resnet56", "vgg16"),
    *("branchynet_lenet", "branchynet_lenet_whole", "branchynet_resnet", "branchynet_resnet_whole"),
}
N_EXITS = {
    "rdi_smallcnn": 3,
    **{"msdnet": 5, "msdnet21": 6, "msdnet_anytime": 11, "msdnet_anytime7": 7, "vit_exits": 4},
    **{"sdn_resnet56": 7, "sdn_vgg16": 7, "branchynet_lenet": 2, "branchynet_resnet": 3},
}
NOT_CONVOLUTIONAL = {"vit_exits", "vit_whole"}


@pytest.fixture(scope="module", params=model_names())
def built(request):
    card = model_card(request.param)
    return card, card.build().eval()


def test_everything_promised_is_registered():
    assert set(model_names()) == EXPECTED


def test_logits_have_the_promised_shape(built):
    card, net = built
    x = torch.rand(2, *card.input_shape)
    with torch.no_grad():
        logits = net(x)
    n_exits = 7 if card.name.startswith("rdi_") else 1
    assert logits.shape == (N_EXITS.get(card.name, n_exits), 2, 10)
    assert torch.isfinite(logits).all()


def test_views_agree_with_the_network(built):
    card, net = built
    x = torch.rand(2, *card.input_shape)
    with torch.no_grad():
        logits = net(x)
        for k in (1, net.n_exits):
            torch.testing.assert_close(ExitView(net, k)(x), logits[k - 1])


def test_each_exit_costs_more_than_the_one_before(built):
    card, net = built
    costs = measure_costs(net, card.input_shape)
    assert list(costs.mmacs) == sorted(costs.mmacs)
    assert len(costs.mmacs) == net.n_exits
    assert costs.notes is None
    assert (costs.mflops_paper is None) == (card.name in NOT_CONVOLUTIONAL)
    assert costs.mmacs[0] > 0
    assert costs.mmacs == costs.mmacs_dense and costs.sparsity == 0


def test_cards_say_where_the_model_comes_from(built):
    card, _ = built
    assert card.paper and card.licence and card.summary and card.dataset in ("cifar10", "mnist")
    assert card.title and card.family
    assert card.reference is not None and str(card.reference) == card.paper and str(card.reference.year) in card.reference.short


def test_no_two_cards_have_one_title():
    titles = [model_card(name).title for name in model_names()]
    assert len(set(titles)) == len(titles)


def test_a_paper_in_a_few_words():
    assert model_card("rdi_resnet38").reference.short == "Hu et al., ICLR 2020"
    assert Paper("Curie", "On Rays", "CRAS", 1898, "https://example.org").short == "Curie, CRAS 1898"


def test_plain_nets_are_their_rdi_nets_backbone():
    for name in model_names():
        if name.startswith("rdi_"):
            with_branches, plain = model_card(name).build(), model_card(name.removeprefix("rdi_").removesuffix("_gated")).build()
            backbone = [p.shape for stage in with_branches.stages for p in stage.parameters()]
            assert [p.shape for stage in plain.stages for p in stage.parameters()] == backbone


def test_a_taken_name_is_refused():
    def rdi_resnet38() -> MultiExitNet:
        """Taken."""
        raise NotImplementedError

    with pytest.raises(ValueError, match="already registered"):
        register(dataset="cifar10", input_shape=(3, 32, 32), paper="-")(rdi_resnet38)


def test_an_unknown_name_brings_suggestions():
    with pytest.raises(UnknownName, match="did you mean 'rdi_resnet38'"):
        model_card("rdi_resnet83")


def test_deployed_view_of_a_registered_net_needs_a_fitting_policy():
    from exitbench.models.policies import EntropyPolicy

    with pytest.raises(ValueError, match="6 thresholds"):
        DeployedView(model_card("rdi_resnet38").build(), EntropyPolicy((0.1,)))
