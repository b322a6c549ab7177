import json

import pytest
import torch

from exitbench.models.about_weights import AboutWeights, about_weights
from exitbench.models.registry import model_card
from exitbench.models.weights import (
    DEFAULT_TRAININGS,
    SHIPPED,
    WeightsCard,
    WeightsError,
    find_weights,
    known_weights,
    load_weights,
    round_to_half,
    save_weights,
    shipped_weights,
)

CARD = WeightsCard("rdi_smallcnn", "digits", "test", sha256="", source="a test")


@pytest.fixture
def saved(tmp_path):
    net = model_card("rdi_smallcnn").build()
    card, path = save_weights(net, tmp_path / "w", CARD)
    return net, card, path


def test_weights_come_back_as_they_were(saved):
    net, card, path = saved
    other = model_card("rdi_smallcnn").build()
    assert load_weights(other, path, card.sha256) == card.sha256
    for name, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_rounded_weights_take_half_the_space_and_come_back_exactly(tmp_path):
    net = model_card("rdi_smallcnn").build()
    _, full = save_weights(net, tmp_path / "full", CARD)
    round_to_half(net)
    card, half = save_weights(net, tmp_path / "half", CARD)
    assert half.stat().st_size < 0.51 * full.stat().st_size
    other = model_card("rdi_smallcnn").build()
    load_weights(other, half, card.sha256)
    for name, tensor in net.state_dict().items():
        assert other.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(other.state_dict()[name], tensor)


def test_a_flipped_bit_is_noticed(saved):
    net, card, path = saved
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match="corrupt"):
        load_weights(net, path, card.sha256)


def test_a_truncated_file_is_no_safetensors_file(saved):
    net, _, path = saved
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="truncated"):
        load_weights(net, path)


def test_an_html_page_is_no_safetensors_file(saved):
    net, _, path = saved
    path.write_text("<!doctype html><title>404</title>")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_weights(net, path)


def test_weights_of_another_architecture_name_what_does_not_fit(saved):
    _, card, path = saved
    with pytest.raises(WeightsError, match=r"another architecture: missing .*stem.*unexpected .*and \d+ more"):
        load_weights(model_card("rdi_resnet38").build(), path, card.sha256)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors is missing"):
        load_weights(model_card("smallcnn").build(), tmp_path / "nowhere.safetensors")


def test_the_users_own_weights_are_found(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path / "w"))
    card, path = find_weights("rdi_smallcnn", "digits", "test")
    assert (card, path) == (saved[1], saved[2])


def test_weights_that_are_not_there_say_what_is():
    with pytest.raises(WeightsError, match=r"no weights of rdi_smallcnn for cifar10.*digits \(average\)"):
        find_weights("rdi_smallcnn", "cifar10")
    with pytest.raises(WeightsError, match=r"there are: digits \(average\), mnist \(certified"):
        find_weights("rdi_smallcnn", "digits", "nothing")
    with pytest.raises(WeightsError, match=r"there are: mnist \(certified.*digits \(average\)"):
        find_weights("rdi_smallcnn", "mnist", "nothing")


def test_the_default_weights_are_of_adversarial_training_where_some_are():
    for model, dataset in {(card.model, card.dataset) for card, _ in shipped_weights()}:
        trainings = {card.training for card, _ in known_weights(model) if card.dataset == dataset}
        assert (find_weights(model, dataset)[0].training in DEFAULT_TRAININGS) == bool(trainings & {*DEFAULT_TRAININGS})
    assert find_weights("rdi_smallcnn", "mnist")[0].training == "max_average_fast"


def test_a_damaged_card_is_named(tmp_path, monkeypatch):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "x-y-z.json").write_text("{")
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path / "w"))
    with pytest.raises(WeightsError, match=r"x-y-z\.json"):
        known_weights()


def test_a_name_cannot_climb_out_of_the_folder(tmp_path):
    card = WeightsCard("rdi_smallcnn", "digits", "../../x", sha256="", source="-")
    with pytest.raises(WeightsError, match="cannot be part of a file name"):
        save_weights(model_card("rdi_smallcnn").build(), tmp_path, card)


@pytest.mark.parametrize("name", ["rdi_resnet38", "resnet38", "rdi_smallcnn"])
def test_shipped_weights_load_under_their_digest_and_are_small(name):
    card, path = find_weights(name, "digits")
    assert path.parent == SHIPPED
    load_weights(model_card(name).build(), path, card.sha256)
    assert path.stat().st_size < 3e6
    assert "python -m bench train" in card.source and "--seed" in card.source
    assert json.loads(path.with_suffix(".json").read_text())["details"]["seed"] == 0


@pytest.mark.parametrize("about", [None, "text", {"parameters": "many"}, {"title": 3}])
def test_cards_that_say_nothing_for_readers_are_read(about):
    card = WeightsCard("m", "d", "t", sha256="", source="-", details={} if about is None else {"about": about})
    assert about_weights(card) == AboutWeights()
    assert about_weights(WeightsCard("m", "d", "t", "", "-", details={"about": {"title": "x", "later": 1}})).title == "x"
