"""Networks of timm's on the command line: a one-exit baseline, and one with exits, with a file's weights or none."""

from __future__ import annotations

import pytest
import torch

from exitbench.models.zoo import timm_package as adapter
from exitbench.models.zoo.timm_model import find_timm, timm_network
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store

pytest.importorskip("timm")

SHAPE = (1, 8, 8)
BASELINE = "timm:mobilenetv3_small_050(num_classes=10)"
EXITS = "timm:mobilenetv3_small_050+exits(num_classes=10, out_indices=(0, 1))"
RUN = ["--dataset", "digits", "--n", "4", "--steps", "2", "--budget", "10"]


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))


def records(tmp_path):
    return {found.record.training: found.record for found in evaluations(Store(tmp_path / "results" / "store"))}


def test_a_baseline_with_the_weights_of_a_file(bench, tmp_path):
    torch.manual_seed(4)
    net = timm_network(BASELINE, SHAPE)
    torch.save({"state_dict": {f"module.{name}": value for name, value in net.state_dict().items()}}, tmp_path / "best.pth.tar")
    run = ["run", "--model", BASELINE, "--weights", "best.pth.tar", "--attack", "single", *RUN]
    code, out, err = bench(*run)
    assert code == 0 and "timm.mobilenetv3_small_050-num_classes-10 on digits test" in out, err
    record = records(tmp_path)["best.pth"]
    assert record.n_exits == 1 and "images are normalised: mean 0.449, standard deviation 0.226" in record.note
    assert "file best.pth.tar, SHA-256" in record.source and "random" not in record.note
    code, out, err = bench("verify", "results", "--model", BASELINE, "--weights", "best.pth.tar")
    assert code == 0 and "0 mismatches" in out, err
    code, _, err = bench("verify", "results")
    assert code == 2 and "or timm:NAME" in err
    code, _, err = bench(*run, "--mean", "0.5", "--std", "0.5")
    assert code == 0 and "0 done before" in err and "mean 0.5, standard deviation 0.5" in err, err
    assert "0.449" not in err, "what is given takes the place of what timm says"


def test_exits_at_feature_stages_with_weights_that_were_trained(bench, tmp_path):
    net = timm_network(EXITS, SHAPE)
    torch.save(net.state_dict(), tmp_path / "trained.pt")
    code, out, err = bench("run", "--model", EXITS, "--weights", "trained.pt", "--attack", "average,adaptive", *RUN)
    assert code == 0 and "worst case" in out, err
    record = records(tmp_path)["trained"]
    assert record.n_exits == 2 and record.mmacs[0] < record.mmacs[1]
    code, out, err = bench(
        "latency", "--model", EXITS, "--weights", "trained.pt", "--dataset", "digits", "--n", "4", "--rounds", "3"
    )
    assert code == 0 and "runs whole" not in out, err
    code, out, err = bench("cost", EXITS, "--dataset", "digits")
    assert code == 0 and "by ptflops" in out, err


def test_without_weights_it_is_run_and_says_so(bench, tmp_path):
    code, out, err = bench("run", "--model", BASELINE, "--attack", "single", *RUN)
    assert code == 0 and "are random: timm's cache has none" in out, err
    assert set(records(tmp_path)) == {"random"}
    gate = ["check", "--model", BASELINE, "--results", "gate"]
    code, _, err = bench(*gate, "--attack", "single", *RUN, "--update")
    assert code == 0, err
    code, out, err = bench(*gate)
    assert code == 0 and "PASS" in out, err
    code, _, err = bench("run", "--model", BASELINE, "--attack", "single", "--training", "best", *RUN)
    assert code == 2 and "are called random" in err


def test_every_bad_input_is_one_message(bench, tmp_path, monkeypatch):
    torch.save({"layer": torch.ones(2)}, tmp_path / "other.pt")
    cases = {
        "has 1000 classes, digits has 10": ["--model", "timm:mobilenetv3_small_050"],
        "did you mean 'mobilenetv3_small_050'": ["--model", "timm:mobilenetv3_smal_050"],
        "as in timm:NAME(img_size=8)": ["--model", "timm:vit_tiny_patch16_224(depth=1, num_classes=10)"],
        "the weights of another architecture": ["--model", BASELINE, "--weights", "other.pt"],
        "has no dataset of its own; name one with --dataset": ["--model", BASELINE, "--dataset", "auto"],
    }
    for message, arguments in cases.items():
        code, _, err = bench("run", "--attack", "single", *RUN, *arguments)
        assert code == 2 and message in err, err
    monkeypatch.setattr(adapter.importlib.util, "find_spec", lambda name: None)
    code, _, err = bench("run", "--attack", "single", *RUN, "--model", BASELINE)
    assert code == 2 and "`pip install timm`" in err


def test_the_listing_has_it(bench):
    code, out, _ = bench("list", "models")
    assert code == 0 and "timm:NAME" in out
    assert find_timm("resnet10t").reference == "timm:resnet10t"
