"""Plugins whose own packages are called as those of the user, or as our folders."""

from __future__ import annotations

import re

import pytest

from tests.processes import run
from tests.toys import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
NET = """
from {package}.width import WIDTH
from torch import nn


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH))
"""


@pytest.fixture
def site(tmp_path):
    """Installs distributions into a folder of the path."""
    folder = tmp_path / "site"
    folder.mkdir()

    def install(name, package, source, entry):
        (folder / package).mkdir(exist_ok=True)
        (folder / package / "__init__.py").write_text(source, encoding="utf-8")
        info = folder / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(entry, encoding="utf-8")
        (info / "top_level.txt").write_text(f"{package}\n", encoding="utf-8")
        return folder

    return install


MODULE = "import runpy; runpy.run_module('exitbench', run_name='__main__', alter_sys=True)"
MAIN = "from exitbench.cli.main import main; main()"


def bench(tmp_path, program, *arguments):
    done = run(*arguments, cwd=tmp_path / "user", env={"PYTHONPATH": str(tmp_path / "site")}, code=program)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("package", "program"), [("models", MODULE), ("attacks", MAIN)], ids=["models", "attacks"])
def test_a_plugins_package_and_the_users_of_one_name_both_work(package, program, site, tmp_path):
    site("extras", package, EXAMPLE, f"[exitbench.attacks]\ncorner = {package}:corner\n[exitbench.models]\nstriped = {package}\n")
    own = tmp_path / "user" / package
    own.mkdir(parents=True)
    (own / "__init__.py").write_text("", encoding="utf-8")
    (own / "width.py").write_text("WIDTH = 10\n", encoding="utf-8")
    (tmp_path / "user" / "net.py").write_text(NET.format(package=package), encoding="utf-8")
    settings = ["--dataset", "digits", "--attack", "corner", "--n", "4"]
    code, _, err = bench(tmp_path, program, "run", "--model", "net.py:make", *settings)
    assert code == 0 and "left out" not in err, err
    code, out, err = bench(tmp_path, program, "list", "models")
    assert code == 0 and "striped" in out and "left out" not in err, err


def test_two_distributions_with_one_package_are_named(site, tmp_path):
    (tmp_path / "user").mkdir()
    site("one", "models", "", "[exitbench.attacks]\nmine = models:lost\n")
    site("other", "models", "", "")
    code, out, err = bench(tmp_path, MODULE, "list", "attacks")
    assert code == 0 and "adaptive" in out
    assert "one 1.2" in err and "the package 'models' is installed by one and by other; uninstall one" in " ".join(err.split())
