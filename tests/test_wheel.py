"""The installed wheel works among a user's packages that are called as our folders are, and says what is missing from it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.toys import ROOT

pytestmark = pytest.mark.long

SOURCES = ("bench", "models", "attacks", "pyproject.toml", "README.md", "LICENSE")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")

USERS = {
    "models/__init__.py": "",
    "models/net.py": """
from attacks import SIZE
from bench.layers import Exit
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.exits = nn.ModuleList([Exit(64), Exit(SIZE)])

    def forward(self, x):
        return [self.exits[0](x), self.exits[1](self.trunk(x))]


def make():
    return Net()
""",
    "attacks.py": "SIZE = 144\n",
    "bench/__init__.py": "",
    "bench/layers.py": """
from torch import nn


class Exit(nn.Sequential):
    def __init__(self, size):
        super().__init__(nn.Flatten(), nn.Linear(size, 10))
""",
    "eval_net.py": "from models.net import Net\n\n\ndef make():\n    return Net()\n",
}

MODULES = """
import json, sys
from exitbench.cli.main import main
sys.argv = ["exitbench", *sys.argv[1:]]
try:
    main()
finally:
    bare = [name for name in sys.modules if name.partition(".")[0] in ("models", "attacks", "bench")]
    print("\\n" + json.dumps({name: sys.modules[name].__file__ for name in bare}))
"""

CLIENT = """
import exitbench
from exitbench.models.registry import model_card

reveal_type(exitbench.load_results)
reveal_type(model_card("rdi_smallcnn").build)
exitbench.evaluate("rdi_smallcnn", dataset="digits", n="eight")
"""

MYPY = """
[mypy]
strict = true
follow_imports = silent
cache_dir = mypy

[mypy-torch.*]
follow_imports = skip
"""


@dataclass(frozen=True)
class Installed:
    """A fresh virtual environment with the wheel in it, and the folder of a user."""

    venv: Path
    folder: Path

    @property
    def package(self) -> Path:
        (found,) = self.venv.glob("lib/python*/site-packages/exitbench")
        return found

    def run(self, program: str, *arguments: str) -> tuple[int, str, str]:
        own = ("PYTHONPATH", "EXITBENCH_WEIGHTS", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if name not in own} | {"COLUMNS": "200"}
        command = [self.venv / "bin" / program, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


def write_tree(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of the checkout, built in a copy of it, so that nothing of an earlier build gets in."""
    copy = tmp_path_factory.mktemp("copy")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    subprocess.run([*PIP, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist"], cwd=copy, check=True)
    (built,) = (copy / "dist").glob("exitbench-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    """The wheel in an environment that finds its dependencies in this one, but not the checkout that is installed here."""
    folder, venv = tmp_path_factory.mktemp("user"), tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    subprocess.run([*PIP, "--python", venv / "bin" / "python", "install", "--no-deps", "--no-index", wheel], check=True)
    write_tree(folder, USERS)
    found = Installed(venv, folder)
    here = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (found.package.parent / "dependencies.pth").write_text("\n".join(here) + "\n", encoding="utf-8")
    return found


def run_arguments(model: str, results: str) -> list[str]:
    settings = ["--dataset", "digits", "--policy", "entropy@equal", "--attack", "single,policy", "--n", "8", "--results", results]
    return ["run", "--model", model, *settings]


def attacks_on_the_board(folder: Path) -> list[str]:
    (board,) = (folder / "leaderboards").glob("*.csv")
    return [row["attack"] for row in csv.DictReader(board.open(newline="", encoding="utf-8"))]


def test_a_users_network_is_evaluated_among_packages_called_as_our_folders(installed):
    code, _, err = installed.run("exitbench", *run_arguments("eval_net.py:make", "by_file"))
    assert code == 0, err
    code, out, err = installed.run("python", "-c", MODULES, *run_arguments("models.net:make", "by_module"))
    assert code == 0, err
    bare = json.loads(out.splitlines()[-1])
    assert {"models", "models.net", "attacks", "bench", "bench.layers"} == set(bare)
    assert all(Path(file).is_relative_to(installed.folder) for file in bare.values())
    for results in ("by_file", "by_module"):
        assert attacks_on_the_board(installed.folder / results)[0] == "none"
        assert attacks_on_the_board(installed.folder / results)[-1] == "worst"
    code, out, err = installed.run("exitbench", "report", "--results", "by_file")
    assert code == 0, err
    assert "eval_net.make" in (installed.folder / "by_file" / "index.html").read_text(encoding="utf-8")


def test_a_shipped_network_is_found_with_its_weights(installed):
    arguments = ["--dataset", "digits", "--attack", "single", "--n", "8", "--results", "shipped"]
    code, _, err = installed.run("python", "-m", "exitbench", "run", "--model", "rdi_smallcnn", *arguments)
    assert code == 0, err
    assert "none" in attacks_on_the_board(installed.folder / "shipped")


def test_a_client_sees_our_types(installed):
    write_tree(installed.folder, {"client.py": CLIENT, "mypy.ini": MYPY})
    _, out, err = installed.run("python", "-m", "mypy", "client.py")
    assert 'Revealed type is "' in out and "exitbench.models.multi_exit.MultiExitNet" in out, out + err
    assert "exitbench.api.evaluation.Evaluation" in out, out
    assert 'Argument "n" to "evaluate" has incompatible type "str"' in out and "Found 1 error" in out, out


MISSING = {
    "weights": ("models/weights", "models/weights/*.json", ["list", "models"]),
    "one weight file": (
        "models/weights/rdi_smallcnn-digits-average.safetensors",
        "models/weights/rdi_smallcnn-digits-average.safetensors",
        ["list", "models"],
    ),
    "templates": ("report/templates", "report/templates/panel.vg.json", ["report", "--results", "by_file"]),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_from_the_wheel_is_named(case, installed):
    if not (installed.folder / "by_file" / "store").is_dir():
        assert installed.run("exitbench", *run_arguments("eval_net.py:make", "by_file"))[0] == 0
    removed, named, command = MISSING[case]
    (installed.package / removed).rename(installed.venv / "aside")
    try:
        code, _, err = installed.run("exitbench", *command)
    finally:
        (installed.venv / "aside").rename(installed.package / removed)
    assert code == 2 and f"{named} is missing from this installation of exitbench; install it again" in err, err
    assert "Traceback" not in err
