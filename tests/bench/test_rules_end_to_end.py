"""Every rule that can be calibrated, through the whole command line: run, report, sweep, verify, latency and the gate."""

import csv

import pytest

from exitbench.models.policy_text import parse_policy
from exitbench.models.rules.registry import calibrated_kinds

NET = """
from torch import nn
from exitbench.models.gate_scores import ScoredHead
from exitbench.models.multi_exit import MultiExitNet

class Classes(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.linear = nn.Linear(256, outputs)

    def forward(self, features):
        return 4 * self.linear(features.flatten(1))

def make():
    stages = [nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())]
    stages += [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(2)]
    return MultiExitNet(stages, [ScoredHead(Classes(10), Classes(1)) for _ in range(3)])
"""


@pytest.mark.parametrize("kind", list(calibrated_kinds()))
def test_a_rule_goes_through_every_command(kind, bench, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    target = ("--model", "net.py:make", "--dataset", "digits", "--n", "8", "--eps", "0.1")
    code, out, err = bench("run", *target, "--policy", f"{kind}@equal", "--attack", "adaptive,slowdown:free", "--budget", "8")
    assert code == 0, err
    (board,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    rows = list(csv.DictReader(board.open(newline="")))
    (text,) = {row["policy"] for row in rows}
    rule = parse_policy(text, 3)
    assert text.partition(":")[0] == kind
    page = (tmp_path / "results" / "index.html").read_text()
    assert rule.condition(1).replace(">", "&gt;").replace("<", "&lt;") in page
    code, out, err = bench("sweep", "--model", "net.py:make", "--points", "2")
    assert code == 0 and f"exit rule {kind}" in out, err
    code, out, err = bench("verify", "results", "--model", "net.py:make")
    assert code == 0 and "0 mismatches" in out, err
    gate = ("--policy", text, "--attack", "adaptive", "--budget", "8")
    code, out, err = bench("check", *target, *gate, "--update")
    assert code == 0, err
    code, out, err = bench("check", "--model", "net.py:make")
    assert code == 0 and "PASS" in out, err
    code, out, err = bench("latency", "--model", "net.py:make", "--dataset", "digits", "--policy", text, "--rounds", "3")
    assert code == 0, err


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("patience:9", "9 heads that agree are more than the network's 7 exits"),
        ("gate:0,0,0,0,0,0", "the network has no gate heads"),
        ("margin:0.5", "needs 6 thresholds, got 1"),
        ("patience@best", "unknown calibration 'best'"),
        ("exit@equal", "rule 'exit' cannot be calibrated"),
        ("entropy@accuracy=2", "an accuracy of 200 % is out of reach"),
        ("missing.py:make", "there is no file missing.py"),
    ],
)
def test_a_rule_that_the_network_cannot_have_is_one_line(policy, why, bench):
    code, _, err = bench(
        "run", "--model", "rdi_resnet38", "--dataset", "digits", "--policy", policy, "--attack", "adaptive", "--n", "4"
    )
    assert code == 2
    assert why in err


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("entropi:0.3", "unknown exit rule 'entropi'; did you mean 'entropy'?"),
        ("entropi@equal", "rule 'entropi' cannot be calibrated"),
        ("entropy@mmac=3", "unknown calibration 'mmac=3'"),
        ("entropy@mmacs=x", "calibration 'mmacs=x': 'x' is not a number"),
        ("entropy@risk=0.1,delta=", "calibration 'risk=0.1,delta=': '' is not a number"),
    ],
)
def test_a_rule_that_does_not_exist_is_told_before_data_are_asked_for(policy, why, bench, tmp_path):
    run = ("run", "--model", "rdi_resnet38", "--dataset", "cifar10", "--data", tmp_path / "none", "--attack", "adaptive")
    code, _, err = bench(*run, "--policy", policy)
    assert code == 2 and why in " ".join(err.split()), err
