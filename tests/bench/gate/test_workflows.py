"""The workflows to copy: the steps of the one for your own repository are run in such a repository, as they stand."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml

from tests.bench.trained import trained
from tests.toys import ROOT

EXAMPLES = ROOT / "docs" / "examples"
OWN, OURS = (EXAMPLES / f"{name}.yml" for name in ("github-actions-own-repository", "github-actions"))

NET = """
import torch
from torch import nn

from .blocks import head, stage

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([stage(1), stage(16), stage(16)])
        self.heads = nn.ModuleList([head() for _ in range(3)])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for one, exit_ in zip(self.stages, self.heads):
            x = one(x)
            found.append(exit_(x))
        return found

def make():
    return Net()
"""
BLOCKS = """
from torch import nn

def stage(channels):
    return nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU())

def head():
    return nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
"""


def steps(path):
    """The workflow's environment, and its shell steps by name."""
    found = yaml.safe_load(path.read_text())
    (job,) = found["jobs"].values()
    return found.get("env", {}), {step["name"]: step["run"] for step in job["steps"] if "run" in step}


class Runner:
    """Runs shell steps as GitHub does, in a repository: one after the other, until one fails."""

    def __init__(self, repository: Path, temporary: Path) -> None:
        self.repository, self.temporary = repository, temporary
        temporary.mkdir()
        home = repository.parent / "home"
        home.mkdir(exist_ok=True)
        environment, self.steps = steps(OWN)
        ours = {"RUNNER_TEMP": temporary, "HOME": home, "GITHUB_STEP_SUMMARY": temporary / "summary.md"}
        # What the index would bring is installed: pip finds it there, and installs nothing.
        pip = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_ROOT_USER_ACTION": "ignore"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EXITBENCH")}
        self.environment = {**kept, **environment, **pip, **{k: str(v) for k, v in ours.items()}, "PATH": path}

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        asked = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command]
        return subprocess.run(asked, cwd=self.repository, env=self.environment, capture_output=True, text=True, check=False)

    def run(self) -> str:
        """The name of the step that failed; empty if none did."""
        for name, command in self.steps.items():
            done = self.shell(command)
            self.said = f"{name}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            if done.returncode:
                return name
        return ""

    def cases(self) -> tuple[int, int]:
        """The numbers of tests and of failures in the report."""
        root = ElementTree.parse(self.temporary / "gate.xml").getroot()  # noqa: S314 - our own output
        return int(root.get("tests", "")), int(root.get("failures", ""))


def save(net, path):
    torch.save(net.state_dict(), path)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Somebody's repository: a package called `models`, weights, and the baseline that the workflow's first lines make."""
    folder = tmp_path_factory.mktemp("own") / "repository"
    for name, text in {
        "models/__init__.py": "",
        "models/net.py": NET,
        "models/blocks.py": BLOCKS,
        "requirements.txt": "torch\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "weights").mkdir()
    save(trained()[0], folder / "weights" / "net.pt")
    (command,) = re.findall(r"^# +(exitbench check .*)$", OWN.read_text(), flags=re.MULTILINE)
    done = Runner(folder, folder.parent / "first").shell(f"{command} --n 32 --budget 20")
    assert done.returncode == 0, done.stderr
    assert (folder / "baselines" / "net.json").is_file()
    return folder


def test_the_same_weights_pass(repository, tmp_path):
    runner = Runner(repository, tmp_path / "runner")
    assert list(runner.steps) == ["Install", "Check", "Judged"]
    assert runner.run() == "", runner.said
    tests, failures = runner.cases()
    assert tests > 4 and failures == 0
    assert "PASS" in (tmp_path / "runner" / "summary.md").read_text() == (tmp_path / "runner" / "gate.md").read_text()


def test_damaged_weights_fail(repository, tmp_path):
    net, good = copy.deepcopy(trained()[0]), (repository / "weights" / "net.pt").read_bytes()
    with torch.no_grad():
        for head in net.heads:
            head[2].weight.mul_(0.2).add_(0.1 * torch.randn_like(head[2].weight))
    save(net, repository / "weights" / "net.pt")
    runner = Runner(repository, tmp_path / "runner")
    try:
        assert runner.run() == "Check", runner.said
    finally:
        (repository / "weights" / "net.pt").write_bytes(good)
    assert runner.cases()[1] > 0 and "FAIL" in (tmp_path / "runner" / "gate.md").read_text()


def test_a_network_that_ends_the_process_fails(repository, tmp_path):
    source = repository / "models" / "net.py"
    source.write_text(NET + "\nimport os\nos._exit(0)\n")
    runner = Runner(repository, tmp_path / "runner")
    try:
        assert runner.run() == "Judged", runner.said
    finally:
        source.write_text(NET)
    assert runner.cases() == (1, 1)


def test_code_that_ends_python_at_its_start_fails(repository, tmp_path):
    """Before the gate writes anything: there is no report."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import os, sys\nif 'exitbench' in ' '.join(sys.orig_argv):\n    os._exit(0)\n")
    runner = Runner(repository, tmp_path / "runner")
    runner.environment["PYTHONPATH"] = str(site)
    del runner.steps["Install"]
    assert runner.run() == "Judged", runner.said


def test_our_own_workflow_runs_a_gate_of_this_repository_and_asks_for_its_report():
    _, found = steps(OURS)
    asked = shlex.split(found["Check"])
    assert asked[-2:] == ["--junit", "$RUNNER_TEMP/gate.xml"]
    assert shlex.join(asked[:-2]) in (ROOT / "tox.ini").read_text()
    assert found["Judged"] == steps(OWN)[1]["Judged"]
    for path in (OURS, OWN):
        assert "if-no-files-found: error" in path.read_text()
