"""Names of the zoo's entries, entries without weights, and loading them from a fake server."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exitbench.models.cost import count_mmacs, measure_costs
from exitbench.models.errors import UnknownName
from exitbench.models.foreign import ForeignModelError, ForeignNet
from exitbench.models.safe_name import safe_name
from exitbench.models.tensor_file import WeightsError
from exitbench.models.zoo.find import find_published
from exitbench.models.zoo.published import is_published, published_name, published_reference
from exitbench.models.zoo.robustbench_entry import entry_names, find_entry
from exitbench.models.zoo.sketch import sketch
from tests.models.zoo.tiny_zoo import TINY, TinyNet, checkpoint_path, put_into_zoo, weights

REFERENCES = {
    "robustbench:Wong2020Fast": "robustbench.Wong2020Fast",
    "robustbench:Linf/Wong2020Fast": "robustbench.Wong2020Fast",
    "robustbench:cifar10/Linf/Wong2020Fast": "robustbench.Wong2020Fast",
    "robustbench:L2/Engstrom2019Robustness": "robustbench.L2.Engstrom2019Robustness",
    "robustbench:cifar100/Linf/Rice2020Overfitting": "robustbench.cifar100.Linf.Rice2020Overfitting",
    "pyautoattack:resnet18": "pyautoattack.resnet18",
}


@pytest.mark.parametrize(("reference", "name"), REFERENCES.items())
def test_a_reference_has_a_name_for_reports_and_the_name_leads_back(reference, name):
    assert is_published(reference) and published_name(reference) == name == safe_name(name)
    found = find_published(reference)
    assert found.name == name and find_published(str(published_reference(name))) == found


@pytest.mark.parametrize("name", ["rdi_resnet38", "tiny.py:make", "robustbench.utils:load_model", "./robustbench.py:make"])
def test_other_names_are_no_published_ones(name):
    assert not is_published(name)


def test_unknown_names_get_suggestions():
    with pytest.raises(UnknownName, match="did you mean 'Wong2020Fast'"):
        find_published("robustbench:wong2020fst")
    with pytest.raises(UnknownName, match="did you mean 'cifar10'"):
        find_published("robustbench:cifar/Linf/Wong2020Fast")
    with pytest.raises(UnknownName, match=r"norm of RobustBench 'corruptions'.*L2, Linf"):
        find_published("robustbench:corruptions/Standard")
    with pytest.raises(UnknownName, match="did you mean 'resnet18'"):
        find_published("pyautoattack:resnet")
    for wrong in ("robustbench:", "robustbench:a/b/c/d", "robustbench:/x", "robustbench:Linf/"):
        with pytest.raises(ForeignModelError, match="NAME"):
            find_published(wrong)


@pytest.mark.parametrize(
    ("name", "mmacs"),
    [
        ("Addepalli2021Towards_RN18", 555),  # ResNet-18
        ("Carmon2019Unlabeled", 5_243),  # WRN-28-10
        ("Bartoldson2024Adversarial_WRN-94-16", 53_260),  # WRN-94-16
        ("Amini2024MeanSparse_S-WRN-94-16", 53_260),  # the same; its forward reads the value of one of its tensors
    ],
)
def test_entries_are_counted_without_weights(name, mmacs):
    assert find_entry(name).mmacs() == pytest.approx(mmacs, abs=0.5)


def test_entries_that_timm_makes_are_made_as_the_loader_makes_them():
    """XCiT-S12 on 32x32 images; robustbench's own table names a function of timm's that is not there."""
    assert "Debenedetti2022Light_XCiT-S12" in entry_names()
    assert find_entry("Debenedetti2022Light_XCiT-S12").mmacs() > 1000


def test_an_entry_that_looks_at_values_is_said_to_have_no_cost():
    with pytest.raises(ForeignModelError, match=r"cannot make cifar10/Linf/Kang2021Stable here .*meta"):
        find_entry("Kang2021Stable").mmacs()


def test_costs_without_weights_are_those_with_them():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))
    macs = 4 * 3 * 9 * 30 * 30 + 4 * 30 * 30 * 10
    shape = (3, 32, 32)
    assert count_mmacs(net, shape) == macs / 1e6
    flat = sketch(lambda: net)
    assert all(parameter.is_meta for parameter in flat.parameters())
    assert count_mmacs(flat, shape) == macs / 1e6
    costs = measure_costs(ForeignNet(flat, shape), shape)
    assert (costs.mmacs, costs.sparsity) == ((macs / 1e6,), 0.0)


def test_a_network_without_products_has_no_cost():
    with pytest.raises(ValueError, match="no multiply-accumulates"):
        count_mmacs(nn.Sequential(nn.BatchNorm2d(3)), (3, 4, 4))


def test_an_entry_is_downloaded_once_and_recorded(monkeypatch, tmp_path):
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))
    asked = put_into_zoo(monkeypatch)
    entry = find_entry(TINY)
    first, second = entry.load(), entry.load()
    assert asked == ["tiny-id"] and first.source == second.source and "Tiny2024Test.pt SHA-256" in first.source
    x = torch.rand(2, 3, 32, 32)
    expected = TinyNet.__new__(TinyNet)  # the arithmetic, without the constructor's GPU
    pooled = nn.functional.avg_pool2d(x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), 8).flatten(1)
    assert isinstance(first.net, type(expected)) and not first.net.training
    assert torch.allclose(first.net(x), nn.functional.linear(pooled, *weights().values()))
    assert dict(first.net.named_buffers()).keys() == {"mean"}, "constants move with the network"


def test_a_download_that_fails_says_where_the_file_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))

    def unreachable(path):
        raise OSError("no route to host")

    put_into_zoo(monkeypatch, unreachable)
    with pytest.raises(WeightsError, match=r"no route to host.*drive.google.com/uc\?id=tiny-id") as caught:
        find_entry(TINY).load()
    assert str(checkpoint_path(tmp_path)) in str(caught.value)


def test_what_is_no_checkpoint_is_neither_loaded_nor_recorded(monkeypatch, tmp_path):
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))
    put_into_zoo(monkeypatch, lambda path: open(path, "w").write("<!doctype html>"))  # noqa: PTH123, SIM115
    with pytest.raises(WeightsError, match="web page"):
        find_entry(TINY).load()
    assert list(checkpoint_path(tmp_path).parent.iterdir()) == []


def test_a_checkpoint_of_another_architecture_is_not_recorded(monkeypatch, tmp_path):
    monkeypatch.setenv("EXITBENCH_WEIGHTS", str(tmp_path))
    put_into_zoo(monkeypatch, lambda path: torch.save({"state_dict": {"other": torch.ones(1)}}, path))
    with pytest.raises(WeightsError, match="Missing key"):
        find_entry(TINY).load()
    assert [path.name for path in checkpoint_path(tmp_path).parent.iterdir()] == [f"{TINY}.pt"]
