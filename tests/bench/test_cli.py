"""The command line, end to end: real weights, real processes, real signals."""

from __future__ import annotations

import json
import re
import signal
import time
from dataclasses import replace

import pytest
import torch

from exitbench.attacks.regions import ThreatModel
from exitbench.models.registry import model_card
from exitbench.models.weights import WeightsCard, find_weights, save_weights
from exitbench.training.recipe import Phase, Recipe
from tests.processes import Started, environment

pytestmark = pytest.mark.long

RUN = ["run", "--model", "rdi_smallcnn", "--dataset", "digits"]
QUICK = [*RUN, "--attack", "average", "--n", "8", "--steps", "2"]


# No test depends on what the network holds: the proxy refuses every connection.
NO_NETWORK = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


def start(*arguments, cwd, env=None):
    return Started(
        *arguments, cwd=cwd, env=environment(COLUMNS="120", EXITBENCH_DATA=str(cwd / "no-data"), **NO_NETWORK, **(env or {}))
    )


def bench(*arguments, cwd, env=None):
    process = start(*arguments, cwd=cwd, env=env)
    out, err = process.communicate()
    return process.returncode, out, err


def csv_of(folder):
    (path,) = (folder / "results" / "leaderboards").glob("*.csv")
    return path.read_bytes()


def test_the_main_job_in_small(tmp_path):
    code, out, err = bench(
        "run", "--model", "rdi_smallcnn", "--attack", "single,max_average", "--n", 40, "--steps", 3, cwd=tmp_path
    )
    assert code == 0, err
    assert "evaluated on digits, the embedded stand-in for mnist: could not download" in " ".join(err.split())
    assert "worst case" in out and "rdi_smallcnn on digits test, Linf 0.23, n = 40" in out
    results = tmp_path / "results"
    for name in ("leaderboards/digits-Linf-0.23.csv", "plots/digits-Linf-0.23.png", "plots/digits-Linf-0.23.svg", "index.html"):
        assert (results / name).stat().st_size > 500, name

    first = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    code, _, err = bench(
        "run", "--model", "rdi_smallcnn", "--attack", "single,max_average", "--n", 40, "--steps", 3, cwd=tmp_path
    )
    assert code == 0 and "nothing left to do" in err
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == first

    for name in ("leaderboards", "plots"):
        for path in (results / name).iterdir():
            path.unlink()
    code, _, err = bench("report", cwd=tmp_path)
    assert code == 0, err
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == first


def test_a_dry_run_shows_the_plan_and_does_nothing(tmp_path):
    code, _, err = bench(*QUICK, "--dry-run", cwd=tmp_path)
    assert code == 0
    assert "2 to run" in err
    assert not list((tmp_path / "results").rglob("*.npz"))


BAD = {
    "unknown model": (["run", "--model", "rdi_smalcnn", "--attack", "all"], "did you mean 'rdi_smallcnn'"),
    "unknown attack": ([*RUN, "--attack", "averge"], "did you mean 'average'"),
    "unknown dataset": (["run", "--model", "rdi_smallcnn", "--attack", "all", "--dataset", "digit"], "did you mean 'digits'"),
    "unknown training": ([*QUICK, "--training", "nothing"], "there are: digits (average)"),
    "no attack": ([*RUN, "--attack", ","], "name at least one attack"),
    "negative eps": ([*QUICK, "--eps", "-0.1"], "finite number >= 0"),
    "NaN eps": ([*QUICK, "--eps", "nan"], "finite number >= 0"),
    "eps that is none": ([*QUICK, "--eps", "8/0"], "fraction such as 8/255"),
    "n too large": ([*RUN, "--attack", "average", "--n", "501"], "digits test (scikit-learn) has 500 samples"),
    "n zero": ([*RUN, "--attack", "average", "--n", "0"], "outside 1..500"),
    "no such exit": ([*RUN, "--attack", "single:4"], "exits are 1..3"),
    "policy of another net": ([*QUICK, "--policy", "entropy:0.1"], "needs 2 thresholds, got 1"),
    "unknown policy": ([*QUICK, "--policy", "oracle:1"], "the forms are"),
    "unknown calibration": ([*QUICK, "--policy", "entropy@guess"], "unknown calibration"),
    "cost out of reach": ([*QUICK, "--policy", "entropy@mmacs=1000"], "out of reach"),
    "dataset of another shape": (
        ["run", "--model", "rdi_smallcnn", "--attack", "all", "--dataset", "cifar10"],
        "the model takes 1x28x28",
    ),
    "training without weights": ([*QUICK, "--training", "guess"], "no weights of rdi_smallcnn"),
    "missing weights file": ([*QUICK, "--weights", "nowhere.safetensors"], "nowhere.safetensors is missing"),
    "missing checkpoint": (["import-checkpoint", "nowhere.pth.tar"], "nowhere.pth.tar is missing"),
    "unknown recipe": (["train", "rdi_smallcn-digits-average"], "did you mean 'rdi_smallcnn-digits-average'"),
    "missing recipe file": (["train", "nowhere.json"], "nowhere.json is not a readable recipe"),
    "a rule alone has no epochs": (
        ["train", "rdi_smallcnn-mnist-max_average_fast", "--rule-only", "--epochs", "9"],
        "trains nothing",
    ),
    "too few epochs": (["train", "rdi_smallcnn-mnist-max_average_fast", "--epochs", "2"], "has 3 phases; it needs at least"),
    "unknown command": (["rum"], "did you mean 'run'"),
    "report without a store": (["report"], "there is no store"),
    "unknown list": (["list", "modles"], "models"),
    "unknown model to cost": (["cost", "resnet39"], "did you mean 'resnet38'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_and_exit_code_2(case, tmp_path):
    arguments, message = BAD[case]
    code, _, err = bench(*arguments, cwd=tmp_path)
    assert code == 2, err
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    _, path = find_weights("rdi_smallcnn", "digits")
    (tmp_path / "short.safetensors").write_bytes(path.read_bytes()[:5000])
    code, _, err = bench(*QUICK, "--weights", "short.safetensors", cwd=tmp_path)
    assert code == 2 and "truncated" in err and "Traceback" not in err
    code, _, err = bench(
        "run", "--model", "rdi_resnet38", "--dataset", "digits", "--attack", "average", "--weights", path, cwd=tmp_path
    )
    assert code == 2 and "another architecture" in err and "missing stages.0.stem" in " ".join(err.split())


def test_corrupt_registered_weights_are_refused(tmp_path):
    folder = tmp_path / "w"
    save_weights(model_card("rdi_smallcnn").build(), folder, WeightsCard("rdi_smallcnn", "digits", "mine", "", "a test"))
    (path,) = folder.glob("*.safetensors")
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 255
    path.write_bytes(raw)
    code, _, err = bench(*QUICK, "--training", "mine", cwd=tmp_path, env={"EXITBENCH_WEIGHTS": str(folder)})
    assert code == 2 and "corrupt or not the registered file" in " ".join(err.split())


def test_a_model_that_returns_nan_is_refused(tmp_path):
    net = model_card("rdi_smallcnn").build()
    with torch.no_grad():
        net.heads[0][-1].bias.fill_(float("nan"))
    save_weights(net, tmp_path / "w", WeightsCard("rdi_smallcnn", "digits", "nan", "", "a test"))
    code, _, err = bench(*QUICK, "--training", "nan", cwd=tmp_path, env={"EXITBENCH_WEIGHTS": str(tmp_path / "w")})
    assert code == 2 and "returns NaN" in err


def test_results_that_cannot_be_written_are_noticed_before_any_work(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "store").write_text("a file in the way")
    code, _, err = bench(*QUICK, cwd=tmp_path)
    assert code == 2 and "cannot be written" in err and "--results" in err


def test_eps_zero_is_the_clean_accuracy(tmp_path):
    code, out, err = bench(*QUICK, "--eps", "0", cwd=tmp_path)
    assert code == 0, err
    figures = re.findall(r"(?:none \(clean\)|average|worst case) *│ +([\d.]+)", out)
    assert len(figures) == 3 and len(set(figures)) == 1


LONG = [*RUN, "--attack", "single,average,max,max_average,average_max", "--n", "128", "--steps", "8"]


def test_killing_the_run_again_and_again_ends_with_the_same_csv(tmp_path):
    """SIGKILL at moments spread over the run; the run that is at last left alone ends as an unbroken one."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (unbroken, broken):
        folder.mkdir()
    assert bench(*LONG, cwd=unbroken)[0] == 0
    wanted = len(list((unbroken / "results").rglob("*.npz")))
    killed_in_work = 0
    for goal in range(0, wanted, max(1, wanted // 4)):
        process = start(*LONG, cwd=broken)
        while process.poll() is None and len(list((broken / "results").rglob("*.npz"))) <= goal:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        killed_in_work += process.returncode == -signal.SIGKILL
    assert killed_in_work >= 3
    code, _, err = bench(*LONG, cwd=broken)
    assert code == 0, err
    assert csv_of(broken) == csv_of(unbroken)


def test_what_ends_a_run_keeps_what_is_finished_and_says_how_to_go_on(tmp_path):
    kept = 0
    for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        process = start(*LONG, cwd=tmp_path)
        while process.poll() is None and len(list(tmp_path.rglob("*.npz"))) < kept + 3:
            time.sleep(0.01)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "Traceback" not in err and "give the same command again to resume" in " ".join(err.split())
        kept = len(list(tmp_path.rglob("*.npz")))
    code, _, err = bench(*LONG, cwd=tmp_path)
    assert code == 0 and f"{kept} done before" in err


def test_an_interrupted_training_goes_on_from_its_last_epoch(tmp_path):
    recipe = Recipe("smallcnn", "digits", "tiny", ThreatModel("Linf", 0.1), (Phase(30),), batch_size=64, peak_lr=0.02)
    (tmp_path / "tiny.json").write_text(json.dumps(recipe.summary()))
    command = ["train", "tiny.json", "--out", "w"]
    process = start(*command, cwd=tmp_path)
    resume = tmp_path / "w" / "smallcnn-digits-tiny.resume"
    while not resume.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130 and "are kept: give the same command to go on" in err
    code, _, err = bench(*command, "--epochs", "29", cwd=tmp_path)
    assert code == 2 and "is of another recipe or seed" in err
    shorter = replace(recipe, phases=(Phase(2),))
    (tmp_path / "tiny.json").write_text(json.dumps(shorter.summary()))
    resume.unlink()
    code, _, err = bench(*command, cwd=tmp_path)
    assert code == 0, err
    assert "epoch 2/2" in err and "min left" in err and "on held-out training images (n = 200), deployed, clean" in err
    assert not resume.exists() and resume.with_suffix(".safetensors").exists()
    code, _, err = bench(*command, cwd=tmp_path)
    assert code == 2 and "is there already" in err


@pytest.mark.parametrize("what", ["models", "attacks", "datasets", "recipes"])
def test_what_can_be_named_is_listed(what, tmp_path):
    code, out, _ = bench("list", what, cwd=tmp_path)
    assert code == 0
    expected = {"models": "rdi_resnet38", "attacks": "average_max", "datasets": "8/255", "recipes": "rdi_smallcnn-digits-average"}
    assert expected[what] in out


def test_costs_agree_with_ptflops(tmp_path):
    code, out, err = bench("cost", "rdi_resnet38", cwd=tmp_path)
    assert code == 0, err
    counted, theirs = map(float, re.search(r"all exits: ([\d.]+) mmacs counted, ([\d.]+) by ptflops", out).groups())
    assert counted == pytest.approx(101.11, abs=0.01)
    assert theirs == pytest.approx(counted, rel=1e-3)


def test_one_exit_nets_skip_what_is_the_same(tmp_path):
    code, out, err = bench(
        "run", "--model", "resnet38", "--attack", "single,average,slowdown", "--n", 4, "--steps", 1, cwd=tmp_path
    )
    assert code == 0, err
    assert "skipped average: the same as single:1" in err
    assert "skipped slowdown:free: one exit has one cost" in err
    assert "single:1" in out


def test_the_authors_checkpoint_becomes_registered_weights(tmp_path, authors_checkpoint):
    code, out, err = bench("import-checkpoint", authors_checkpoint, "--out", tmp_path / "w", cwd=tmp_path)
    assert code == 0, err
    assert "(the released checkpoint)" in out
    assert (tmp_path / "w" / "rdi_resnet38-cifar10-authors.safetensors").exists()
