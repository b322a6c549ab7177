"""Robustbench works inside the adapter, and nothing is changed outside."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest
import torch
from torch import nn

from exitbench.models.foreign import ForeignModelError
from exitbench.models.zoo import package as adapter
from exitbench.models.zoo.package import robustbench_package
from exitbench.models.zoo.stand_ins import STAND_INS, StandInFinder
from tests.toys import ROOT


def _theirs():
    return {name for name in sys.modules if name in STAND_INS or name.partition(".")[0] == "robustbench"}


def test_nothing_is_left_in_sys_modules_and_nothing_of_timms_is_renamed():
    import timm

    registered = timm.list_models()
    before = _theirs()
    with robustbench_package() as package:
        assert package.utils.all_models and "robustbench.eval" in sys.modules
        assert timm.is_model("debenedetti2022light_xcit_s12_cifar10_linf")
        with robustbench_package() as again:
            assert again is package
        assert "robustbench.utils" in sys.modules  # the inner context ends nothing
    assert _theirs() == before
    assert timm.list_models() == registered
    assert not any(isinstance(finder, StandInFinder) for finder in sys.meta_path)
    with robustbench_package() as later:
        assert later is package and timm.is_model("debenedetti2022light_xcit_s12_cifar10_linf")
    assert _theirs() == before


def test_sys_modules_are_put_back_after_an_error():
    before = _theirs()
    with pytest.raises(KeyError), robustbench_package():
        raise KeyError
    assert _theirs() == before


def test_what_is_printed_inside_goes_to_the_error_stream(capsys):
    with robustbench_package():
        print("downloading")  # noqa: T201
    assert capsys.readouterr() == ("", "downloading\n")


def test_without_the_package_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr(adapter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ForeignModelError, match=r"pip install robustbench"), robustbench_package():
        pass


def test_a_folder_of_that_name_is_not_the_package(monkeypatch):
    """torchattacks ships a folder called robustbench, without a distribution of that name."""

    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(adapter.importlib.metadata, "distribution", none)
    assert adapter.importlib.util.find_spec("robustbench") is not None
    with pytest.raises(ForeignModelError, match=r"robustbench is not installed.*pip install robustbench"), robustbench_package():
        pass


def _fresh(code: str, *paths) -> str:
    """Return what ``code`` prints in a separate interpreter, with ``paths`` before installed packages, and without timm."""
    _package(paths[0], "timm")
    start = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


USE = """
from exitbench.models.zoo.package import robustbench_package
with robustbench_package() as package:
    found = package.utils.all_models
print(*sorted(n for n in sys.modules if n.split(".")[0] in ("robustbench", "autoattack", "pkg_resources")))
"""


def _package(folder, name, **files):
    for file, text in {"__init__": "", **files}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{file}.py").write_text(text)


def test_steps_aside_where_upstream_needs_no_help(tmp_path):
    """A robustbench that imports without stand-ins is imported as any package is, and stays."""
    _package(tmp_path, "robustbench", __init__="from robustbench import utils", utils="all_models = {}")
    assert _fresh(USE, tmp_path).split() == ["robustbench", "robustbench.utils"]


def test_what_is_installed_comes_before_a_stand_in(tmp_path):
    _package(
        tmp_path, "robustbench", __init__="from robustbench import utils", utils="import autoattack\nall_models = autoattack.REAL"
    )
    _package(tmp_path, "autoattack", __init__="REAL = {1: 2}")
    assert _fresh(USE + "print(found)", tmp_path).split("\n")[:2] == ["autoattack robustbench robustbench.utils", "{1: 2}"]


def test_a_package_that_breaks_leaves_nothing_behind_and_says_why(tmp_path):
    _package(tmp_path, "robustbench", __init__="from robustbench import utils", utils="import autoattack, no_such_module")
    code = "try:" + USE.replace("\n", "\n    ") + "\nexcept Exception as error: print(type(error).__name__, error)\n"
    code += "print([n for n in sys.modules if n.split('.')[0] in ('robustbench', 'autoattack')])"
    said = _fresh(code, tmp_path)
    assert "ForeignModelError" in said and "no_such_module" in said and said.endswith("[]\n")


def test_the_old_autoattack_is_pyautoattack_behind_the_old_names():
    """A linear net of two classes: broken exactly where the margin is below what the ball can do."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0], [0.0]]))
    x = torch.tensor([0.05, 0.5]).view(2, 1, 1, 1)
    net = nn.Sequential(nn.Flatten(), _Shifted(net[1], 0.1))
    y = torch.tensor([1, 0])
    with robustbench_package():
        from autoattack import AutoAttack  # type: ignore[import-not-found]

        attack = AutoAttack(net, norm="Linf", eps=0.1, version="custom", attacks_to_run=["apgd-ce"], verbose=False, seed=0)
        found = attack.run_standard_evaluation(x, y, bs=2)
        both = attack.run_standard_evaluation(x, y, bs=1, return_labels=True)
    assert net(found).argmax(-1).tolist() == [0, 0] and (found - x).abs().max() <= 0.1 + 1e-6
    assert both[1].tolist() == [0, 0]
    with pytest.raises(NotImplementedError, match="auto-attack"):
        AutoAttack(net, log_path="x")


class _Shifted(nn.Module):
    def __init__(self, linear: nn.Module, shift: float) -> None:
        super().__init__()
        self.linear, self.shift = linear, shift

    def forward(self, x):
        return self.linear(x - self.shift)


def test_pkg_resources_finds_a_file_beside_a_module():
    with robustbench_package():
        resources = STAND_INS["pkg_resources"]()
        file = resources["resource_filename"]("robustbench.loaders", "helper_files/imagenet_class_to_id_map.json")
    assert file.endswith("robustbench/helper_files/imagenet_class_to_id_map.json")
    with pytest.raises(ModuleNotFoundError):
        resources["resource_filename"]("no_such_module", "x")
