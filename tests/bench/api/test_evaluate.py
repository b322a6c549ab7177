"""``exitbench.evaluate``: the command line's verdicts for a network in memory, and clear words for what cannot be evaluated."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import exitbench
from exitbench.data.digits import load_digits
from exitbench.report.evaluation.plot import bar_rows
from exitbench.report.page.command import commands
from exitbench.store.store import Store

NET_FILE = '''
import torch
from torch import nn


class Small(nn.Module):
    """Two exits on 8x8 images."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.exit_1 = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(32, 10))
        self.exit_2 = nn.Sequential(nn.Flatten(), nn.Linear(512, 10))

    def forward(self, x):
        features = self.first(x)
        return [self.exit_1(features), self.exit_2(features)]


def make():
    torch.manual_seed(3)
    net = Small()
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3)
    return net
'''
RULE = "entropy:1.2"


def small() -> nn.Module:
    found: dict = {}
    exec(NET_FILE, found)  # noqa: S102 - as typed into a notebook: a class without a file
    return found["make"]().eval()


def digits(n: int = 20):
    batch = load_digits("test", (1, 8, 8)).batch(0, n)
    return batch.x, batch.y


def evaluated(net=None, attacks="average", **given):
    given = {"dataset": digits(), "eps": 0.1, "policy": RULE, "steps": 3, "progress": False, **given}
    return exitbench.evaluate(small() if net is None else net, attacks=attacks, **given)


def cells(results, attack):
    store = Store(results / "store")
    (record,) = [record for record in store.runs() if any(each.name == attack for each in record.attacks)]
    (entry,) = [each for each in record.attacks if each.name == attack]
    return [store.read(key) for key in entry.keys]


def test_the_verdicts_are_those_of_the_command_line_to_the_last_bit(tmp_path, bench, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(NET_FILE)
    run = ["run", "--model", "small.py:make", "--dataset", "digits", "--attack", "adaptive,average", "--policy", RULE]
    code, _, _ = bench(*run, "--eps", "0.1", "--n", "20", "--results", "by_command")
    assert code == 0
    net = exitbench.models.factory.find_factory("small.py:make").build().eval()
    found = evaluated(net, "adaptive,average", steps=20, results=tmp_path / "by_call")
    for attack in ("adaptive", "average"):
        one, other = cells(tmp_path / "by_command", attack), cells(tmp_path / "by_call", attack)
        assert len(one) == len(other) > 0
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a.logits, b.logits) and np.array_equal(a.counterexamples, b.counterexamples)
    (stored,) = exitbench.load_results(tmp_path / "by_command")
    assert stored.worst_case == found.worst_case and stored.clean == found.clean
    assert stored.attacks["accuracy"].equals(found.attacks["accuracy"])


def test_what_an_evaluation_shows(tmp_path):
    found = evaluated(attacks=["average", "single:1"], results=tmp_path)
    assert 0 <= found.worst_case.value <= min(found.attacks["accuracy"]) <= found.clean.value
    assert found.worst_case.interval[0] <= found.worst_case.value <= found.worst_case.interval[1]
    assert list(found.attacks.index) == ["average", "single:1"]
    assert found.samples["worst"].mean() == found.worst_case.value
    assert (found.samples["worst"] <= found.samples[["clean", "average", "single:1"]].all(axis=1)).all()
    assert f"{100 * found.worst_case.value:.1f}" in repr(found) and "Small" in repr(found)
    assert found.to_markdown().count("\n") == 6 and "worst case" in found.to_latex() and "<table" in found._repr_html_()
    assert sum(found.exit_counts) == found.n == 20
    bars = bar_rows(found.scored)
    assert [bar["name"] for bar in bars] == ["clean", "average", "single:1", "worst case"]
    assert bars[-1]["share"] == min(bar["share"] for bar in bars) == pytest.approx(100 * found.worst_case.value)
    assert b">worst case</text>" in found.plot().to_bytes("svg") and found.plot()._repr_png_().startswith(b"\x89PNG")


def test_the_same_call_again_computes_nothing(tmp_path, monkeypatch):
    first = evaluated(results=tmp_path)
    monkeypatch.setattr("exitbench.runner.runner.Runner.run", None)
    again = evaluated(results=tmp_path)
    assert again.samples.equals(first.samples)


def test_a_network_that_differs_in_an_attribute_alone_shares_no_result(tmp_path):
    class Shifted(nn.Module):
        def __init__(self, net, labels):
            super().__init__()
            self.net, self.labels = net, labels

        def forward(self, x):
            return [logits.roll(self.labels, -1) for logits in self.net(x)]

    one = evaluated(Shifted(small(), 0).eval(), results=tmp_path)
    other = evaluated(Shifted(small(), 1).eval(), results=tmp_path)
    assert one.scored.record.weights != other.scored.record.weights
    assert evaluated(Shifted(small(), 0).eval(), results=tmp_path).clean == one.clean != other.clean


def test_the_network_is_left_as_it_was():
    net = small()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluated(net)
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_dataset_object_and_uint8_images_are_the_same_samples():
    x, y = digits()
    pixels = (x * 255).round().to(torch.uint8)
    by_tensors = evaluated(dataset=(pixels.float() / 255, y))
    for same in ((pixels, y.numpy()), TensorDataset(pixels, y), (pixels.numpy(), y.to(torch.int32))):
        assert evaluated(dataset=same).samples.equals(by_tensors.samples)
    assert evaluated(dataset=TensorDataset(pixels, y), n=8).n == 8


def test_a_call_without_radius_and_rule_says_what_it_assumed():
    found = exitbench.evaluate(small(), dataset=digits(), attacks="single:2", steps=2, progress=False)
    assert found.policy == "exit:2" and found.scored.record.eps == 8 / 255
    assert "no eps was given" in repr(found) and "the last exit alone" in repr(found)


def test_thresholds_are_set_on_the_images_handed_over_for_it():
    x, y = (torch.cat(parts) for parts in zip(digits(), digits(), strict=True))
    found = evaluated(policy=None, calibration=(x, y))
    assert found.policy.startswith("entropy:") and found.scored.record.calibration
    assert abs(found.exit_counts[0] - 10) <= 2, "the same images: half of them leave at each exit"


def test_a_registered_network_takes_images_in_memory():
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = exitbench.evaluate("rdi_smallcnn", dataset=(x, torch.arange(4)), attacks="single:1", eps=0.3, steps=2, progress=False)
    assert found.model == "rdi_smallcnn" and found.n == 4 and found.policy.startswith("entropy:")


class Unlabelled(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return torch.zeros(1, 8, 8)


X, Y = digits(6)
BAD_DATA = {
    "outside the box": ((2 * X - 1, Y), r"must lie in \[0, 1\], these go from -1 to"),
    "not divided": ((255 * X, Y), "divide whole numbers by 255"),
    "not a number": ((torch.full_like(X, torch.nan), Y), r"must lie in \[0, 1\]"),
    "without labels": (Unlabelled(), "without a label"),
    "images alone": (X, "pair of tensors"),
    "too few labels": ((X, Y[:-1]), "one label per image"),
    "one-hot labels": ((X, nn.functional.one_hot(Y)), "one label per image"),
    "labels as floats": ((X, Y.float()), "whole numbers"),
    "labels as words": ([(image, "seven") for image in X], "name of a dataset"),
    "labels out of range": ((X, Y + 10), "labels must be 0..9"),
    "no channel": ((X[:, 0], Y), r"\(N, C, H, W\)"),
    "no image": ((X[:0], Y[:0]), "N > 0"),
    "a loader": (DataLoader(TensorDataset(X, Y)), "loader.dataset"),
    "an unknown name": ("digitz", "did you mean 'digits'"),
    "of another shape": ((torch.rand(6, 1, 9, 9), Y), "images of 1x9x9|9x9"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_used_is_named(case):
    dataset, message = BAD_DATA[case]
    with pytest.raises(exitbench.UserError, match=message):
        evaluated(dataset=dataset)


def meta():
    with torch.device("meta"):
        return small()


BAD_CALLS = {
    "in training mode": (lambda: {"net": small().train()}, r"Small is in training mode.*net.eval\(\)"),
    "a layer in training mode": (lambda: {"net": training_inside()}, r"training mode \(first\)"),
    "on another device": (lambda: {"net": small(), "device": "cuda"}, r"Small is on cpu.*net.to\('cuda'\)"),
    "on no device": (lambda: {"net": small().to("meta")}, "meta"),
    "no network": (lambda: {"net": 3}, "the model is int"),
    "no attack": (lambda: {"attacks": ""}, "at least one attack"),
    "an unknown attack": (lambda: {"attacks": "avrage"}, "did you mean 'average'"),
    "calibration of a named dataset": (lambda: {"dataset": "digits", "calibration": digits()}, "held-out images of its own"),
}


def training_inside():
    net = small()
    net.first.train()
    return net


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_call_that_cannot_be_used_is_named(case):
    given, message = BAD_CALLS[case]
    with pytest.raises(exitbench.UserError, match=message):
        evaluated(**given())


def test_an_unknown_setting_is_a_mistake_in_the_call():
    with pytest.raises(TypeError, match="'step'; did you mean 'steps'"):
        evaluated(step=3)


def test_a_calibration_is_asked_for_where_thresholds_are_to_be_set():
    with pytest.raises(exitbench.UserError, match=re.escape("calibration=(images, labels)")):
        evaluated(policy="entropy@equal")


def test_an_interrupt_goes_on_to_the_caller_and_keeps_what_is_finished(tmp_path, monkeypatch):
    def interrupted(self, plan, on_start, on_outcome):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("exitbench.runner.runner.Runner.run", interrupted)
        evaluated(results=tmp_path)
    assert evaluated(results=tmp_path).n == 20


def test_progress_is_shown_on_standard_error(capsys):
    evaluated(progress=True)
    out, err = capsys.readouterr()
    assert not out and "average on 0-19" in err


def test_stored_results_are_compared_and_swept(tmp_path):
    one = evaluated(results=tmp_path)
    other = evaluated(policy="entropy:0.2", results=tmp_path)
    found = exitbench.compare(one, other)
    assert list(found.table["row"]) == ["clean", "average", "worst case"]
    assert found.table["a"][2] == one.worst_case.value and found.table["b"][2] == other.worst_case.value
    assert (
        "Small" in repr(found)
        and "<table" in found._repr_html_()
        and found.to_markdown()
        and b"<svg" in found.plot().to_bytes("svg")
    )
    assert len(exitbench.load_results(tmp_path)) == len(exitbench.load_results(tmp_path / "store")) == 2
    with pytest.raises(exitbench.UserError, match="two evaluations or two names"):
        exitbench.compare(one, "Small")
    written = exitbench.write_reports(tmp_path)
    assert (tmp_path / "index.html") in written
    with pytest.raises(exitbench.UserError, match="does not exist"):
        exitbench.load_results(tmp_path / "nowhere")
    with pytest.raises(exitbench.UserError, match="no store"):
        exitbench.sweep(tmp_path / "nowhere")


def test_the_page_gives_the_call_that_reproduces_the_row(tmp_path):
    found = evaluated(results=tmp_path, attacks="average,single:2", loss="margin")
    (call,) = commands(found.scored)
    assert call.startswith("exitbench.evaluate(net, dataset=(images, labels), attacks='average,single:2', ")
    at_hand = {"exitbench": exitbench, "net": small(), "images": digits()[0], "labels": digits()[1]}
    again = eval(f"{call[:-1]}, progress=False)", at_hand)  # noqa: S307 - the text that the page shows, run as a reader would
    assert again.samples.equals(found.samples) and again.attacks.equals(found.attacks)


def test_every_public_name_is_there_and_no_other():
    assert all(getattr(exitbench, name) is not None for name in exitbench.__all__)
    assert set(dir(exitbench)) == set(exitbench.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'evalute'"):
        exitbench.evalute  # noqa: B018
