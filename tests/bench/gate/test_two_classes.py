"""Two classes through the real command: exit codes, what is skipped, and a baseline that is made, kept and checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from exitbench.data import cards
from exitbench.data.cards import Dataset, DatasetCard
from exitbench.data.split import Split
from tests.bench.gate.gated import run

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(1, 4, 3, padding=1)
        self.exit_1, self.exit_2 = nn.Linear(16, 2), nn.Linear(64, 2)

    def forward(self, x):
        return [self.exit_1(x.flatten(1)), self.exit_2(self.trunk(x).relu().flatten(1))]

def make():
    return Net()
"""
ASKED = ["--model", "net.py:make", "--weights", "net.pt", "--dataset", "sides", "--n", 12, "--eps", "0.15", "--steps", 3]
ASKED += ["--policy", "entropy:0.4", "--precision", "fp32", "--budget", 15]


def sides(split="test"):
    """Images that are brighter on the left, or on the right."""
    generator = np.random.RandomState({"test": 0, "train": 1, "calibration": 2}[split])
    labels = generator.randint(0, 2, 200)
    images = 0.4 * generator.rand(200, 1, 4, 4)
    images[np.arange(200), 0, :, :] += 0.3 * (np.arange(4)[None, None, :] // 2 == labels[:, None, None])
    return Split("sides", split, images.clip(0, 1).astype("float32"), labels.astype("int64"), 2, "made")


def load(split, input_shape, root, *, download):
    return sides(split)


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """The command line in a folder with a trained network of two classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    card = DatasetCard("sides", "left or right", (1, 4, 4), 200, {"Linf": 0.15, "L2": 0.6}, 3, 0.25)
    monkeypatch.setitem(cards._registered, "sides", Dataset(card, load, origin=__name__))
    Path("net.py").write_text(NET)
    scope: dict[str, object] = {}
    exec(NET, scope)  # noqa: S102 - the source above
    net = scope["make"]()  # type: ignore[operator]
    batch = sides("train").batch(0, 200)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        sum(nn.functional.cross_entropy(z, batch.y) for z in net(batch.x)).backward()
        optimiser.step()
    torch.save(net.state_dict(), "net.pt")

    def told(*arguments):
        code = run(*arguments)
        out, err = capsys.readouterr()
        return code, " ".join(out.split()), " ".join(err.split())

    return told


@pytest.mark.parametrize("attack", ["all", "worst"])
def test_the_whole_matrix_ends_with_exit_code_0(bench, attack):
    code, _, err = bench("run", *ASKED, "--attack", attack)
    assert code == 0 and ": error" not in err, err
    code, _, err = bench("run", *ASKED, "--attack", attack)
    assert code == 0 and "nothing left to do" in err


@pytest.mark.parametrize("attacks", ["all", "worst", "torchattacks:APGDT,adaptive"])
def test_a_baseline_is_made_and_passed(bench, attacks):
    """What needs more classes is skipped with the reason, when the baseline is made and when it is checked."""
    code, out, err = bench("check", *ASKED, "--attack", attacks, "--update")
    assert code == 0 and "wrote baselines/net.make-net-sides-Linf-0.15.json" in out, (out, err)
    (path,) = Path("baselines").iterdir()
    held = json.loads(path.read_text())
    assert ("skipped torchattacks:APGDT: it needs 4 classes" in err) == ("APGDT" in attacks), err
    assert "torchattacks:APGDT" not in held["verdicts"]
    code, out, err = bench("check", *ASKED[:4], "--precision", "fp32", "--junit", "gate.xml")
    assert code == 0 and out.endswith("PASS nothing is significantly worse"), (out, err)
    assert 'failures="0"' in Path("gate.xml").read_text()


def test_a_regression_of_two_classes_fails(bench):
    assert bench("check", *ASKED, "--attack", "average", "--update", "--n", 64)[0] == 0
    state = torch.load("net.pt", weights_only=True)
    torch.save({name: -value if "exit" in name else value for name, value in state.items()}, "net.pt")
    code, out, err = bench("check", *ASKED[:4], "--precision", "fp32")
    assert code == 1 and "REGRESSION" in out, (out, err)
