"""Packages that add models, attacks and datasets: the example of docs/extending.md installed in a folder, and broken ones."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tomllib

import pytest

from exitbench.attacks import registry as attack_registry
from exitbench.attacks.presets import attack_texts
from exitbench.data import cards
from exitbench.data.cards import dataset_card, dataset_names
from exitbench.data.load import load_split
from exitbench.errors import UserError
from exitbench.models import registry
from exitbench.models.errors import NameTaken
from exitbench.models.plugins import plugins
from exitbench.models.registry import model_names
from exitbench.models.rules import registry as policy_registry
from exitbench.models.rules.registry import policy_cards
from tests.toys import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
(TOML,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package of one module into a folder of the path; all is forgotten afterwards."""
    assert "rdi_resnet38" in model_names()
    assert attack_texts() and dataset_names()
    assert "patience" in policy_cards()
    for each in (registry, policy_registry):
        monkeypatch.setattr(each, "_cards", dict(each._cards))
    for each in (attack_registry, cards):
        monkeypatch.setattr(each, "_registered", dict(each._registered))
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    names = []

    def install(name, source, **groups):
        (folder / f"{name}.py").write_text(source)
        info = folder / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"[exitbench.{group}]\n{text}" for group, text in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        names.append(name)
        plugins.cache_clear()
        return folder

    yield install
    plugins.cache_clear()
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def example(installed):
    groups = tomllib.loads(TOML)["project"]["entry-points"]
    return installed(
        "extras",
        EXAMPLE,
        **{group.partition(".")[2]: "\n".join(f"{k} = {v}" for k, v in each.items()) for group, each in groups.items()},
    )


def test_the_example_is_listed_and_evaluated(example, bench, tmp_path):
    assert "striped stripes - Two linear exits" in bench("list", "models")[1]
    assert "corner a random corner of the ball [extras 1.2]" in bench("list", "attacks")[1]
    assert "stripes 0.1 0.5 16 bright stripes, 4 classes" in bench("list", "datasets")[1]
    assert "spread:T1,T2,... yes the largest logit above the mean of all" in bench("list", "policies")[1]
    (tmp_path / "net.py").write_text("from extras import striped\n")
    code, out, err = bench("run", "--model", "net.py:striped", "--dataset", "stripes", "--attack", "corner,average", "--n", "8")
    assert code == 0, err
    (board,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    assert board.name == "stripes-Linf-0.1.csv"
    assert [row["attack"] for row in csv.DictReader(board.open(newline=""))] == ["none", "corner", "average", "worst"]
    before = board.read_bytes()
    code, out, err = bench("verify", "results", "--model", "net.py:striped")
    assert code == 0 and "0 mismatches" in out, err

    # Without the package its results can still be reported.
    for path in (example / "extras-1.2.dist-info").iterdir():
        path.unlink()
    plugins.cache_clear()
    assert bench("report")[0] == 0
    assert board.read_bytes() == before


def test_an_installed_exit_rule_is_calibrated_attacked_and_swept(example, bench, tmp_path):
    (tmp_path / "net.py").write_text("from extras import striped\n")
    options = ("--model", "net.py:striped", "--dataset", "stripes", "--policy", "spread@equal", "--n", "8")
    code, _, err = bench("run", *options, "--attack", "adaptive,slowdown", "--budget", "10")
    assert code == 0, err
    (board,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    assert {row["policy"].partition(":")[0] for row in csv.DictReader(board.open(newline=""))} == {"spread"}
    code, out, err = bench("sweep", "--model", "net.py:striped", "--points", "3")
    assert code == 0 and "exit rule spread" in out, err
    assert bench("verify", "results", "--model", "net.py:striped")[0] == 0


BY_DECORATORS = EXAMPLE.replace("def corner(", '@register_attack("corner:k", "a corner")\ndef corner(').replace(
    "def corner(deployment, settings)", "def corner(deployment, settings, k)"
)
BY_DECORATORS = f"""
from exitbench.attacks.registry import register_attack
from exitbench.data.cards import register_dataset
{BY_DECORATORS}
register_dataset(Dataset(DatasetCard("bars", "bars", (1, 8, 8), 16, {{"Linf": 0.1, "L2": 0.5}}, 10, 1 / 4), load))
"""


def test_a_module_registers_by_the_same_functions_as_ours(installed, bench):
    installed("decorated", BY_DECORATORS, models="x = decorated", attacks="x = decorated", datasets="x = decorated")
    assert "striped stripes" in bench("list", "models")[1]
    assert "corner:k a corner [decorated]" in bench("list", "attacks")[1]
    assert "bars 0.1 0.5 16 bars" in bench("list", "datasets")[1]
    run = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--n", "2", "--dry-run", "--attack"]
    code, _, err = bench(*run, "corner:2,average")
    assert code == 0 and "corner:2 0/1" in err, err
    assert "exits are 1..3" in bench(*run, "corner:4")[2]


def test_a_factory_of_0_1_is_run_as_before(installed, bench, tmp_path):
    old = EXAMPLE.replace("def corner(deployment, settings)", "def corner(n_exits, settings, policy, costs)")
    installed(
        "older", old.replace("regions import ThreatModel", "regions import Ball as ThreatModel"), attacks="corner = older:corner"
    )
    run = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--n", "2", "--attack", "corner"]
    code, out, err = bench(*run)
    assert code == 0 and "corner" in out, err


def test_help_loads_no_plugin(installed, bench, tmp_path):
    witness = tmp_path / "loaded"
    folder = installed("witness", f"open({str(witness)!r}, 'w')\n", models="w = witness", attacks="w = witness:f")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "bench", "run", "--help"]
    subprocess.run(command, env=environment, capture_output=True, check=True, cwd=ROOT)
    assert not witness.exists()
    bench("list", "attacks")
    assert witness.exists(), "the witness must be one"


def called(name):
    """The example, its dataset under another name."""
    return EXAMPLE.replace('DatasetCard("stripes"', f'DatasetCard("{name}"')


BROKEN = {
    "models": {
        "no such module": ("x = nowhere", "", "ModuleNotFoundError"),
        "an error on import": ("x = broken", "raise RuntimeError('boom')", "RuntimeError: boom"),
        "an exit on import": ("x = broken", "raise SystemExit(1)", "SystemExit"),
        "no such name": ("x = broken:net", "", "AttributeError"),
        "not registered": ("x = broken:net", "def net(): ...", "no function registered with"),
    },
    "attacks": {
        "not callable": ("x = broken:attack", "attack = 3", "it is int, not a function"),
        "a colon in the name": ("x y = broken:attack", "def attack(*a): ...", "an attack cannot be called 'x y'"),
        "an error on import": ("x = broken:attack", "1 / 0", "ZeroDivisionError"),
    },
    "datasets": {
        "no dataset": ("x = broken:data", "data = 3", "it is int, not a exitbench.data.cards.Dataset"),
        "a path for a name": (
            "x = broken:data",
            EXAMPLE.replace('DatasetCard("stripes"', 'DatasetCard("../x"') + "\ndata = stripes",
            "'../x'",
        ),
        "one norm": ("x = broken:data", EXAMPLE.replace(', "L2": 0.5', "") + "\ndata = stripes", "a radius for Linf and for L2"),
    },
}


@pytest.mark.parametrize(("group", "case"), [(group, case) for group, cases in BROKEN.items() for case in cases])
def test_a_broken_plugin_is_named_and_everything_else_works(group, case, installed, bench, caplog):
    entry, source, message = BROKEN[group][case]
    installed("broken", source, **{group: entry})
    code, out, _ = bench("list", group)
    assert code == 0
    assert {"models": "rdi_resnet38", "attacks": "average_max", "datasets": "cifar10"}[group] in out
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert said.startswith("plugin left out: broken 1.2") and entry in said and message in said


TAKEN_MODEL = """
from exitbench.models.registry import register
@register(dataset="digits", input_shape=(1, 8, 8), paper="-")
def rdi_resnet38():
    \"\"\"Taken.\"\"\"
"""

TAKEN = {
    "models": ("x = theirs", TAKEN_MODEL, "model 'rdi_resnet38' of theirs is already registered by exitbench.models.resnet"),
    "attacks": ("slowdown = theirs:f", "def f(*a): ...", "attack 'slowdown' of theirs 1.2"),
    "datasets": (
        "x = theirs:stripes",
        EXAMPLE.replace('DatasetCard("stripes"', 'DatasetCard("digits"'),
        "dataset 'digits' of theirs 1.2",
    ),
}


@pytest.mark.parametrize("group", TAKEN)
def test_a_name_of_ours_is_an_error_that_names_both(group, installed, bench):
    entry, source, message = TAKEN[group]
    installed("theirs", source, **{group: entry})
    code, _, err = bench("list", group)
    assert code == 2 and message in err and "theirs 1.2 (exitbench." in err
    run = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "average", "--n", "2", "--dry-run"]
    assert bench(*run)[0] == 2, "whichever is asked for"


def test_two_packages_with_one_name_are_both_named(installed, bench):
    for name in ("one", "other"):
        installed(name, "def f(*a): ...", attacks=f"mine = {name}:f")
    code, _, err = bench("list", "attacks")
    assert code == 2
    assert "attack 'mine' of other 1.2" in err and "is also one of one 1.2" in err
    with pytest.raises(NameTaken):
        from exitbench.attacks.presets import attack_texts

        attack_texts()


BAD_ATTACKS = {
    "raises": ("def f(n_exits, settings, policy, costs): raise KeyError('steps')", "KeyError: 'steps'"),
    "takes nothing": ("def f(): ...", "TypeError"),
    "returns something else": ("def f(*a): return 3", "returned int, not an exitbench.attacks.base.Attack"),
    "cannot be described": (
        EXAMPLE.replace("    region: Ball", "    region: object") + "\ndef f(*a): return Corner(lambda: 1)",
        "no canonical description",
    ),
}


@pytest.mark.parametrize("case", BAD_ATTACKS)
def test_an_attack_that_cannot_be_made_is_one_clear_message(case, installed, bench):
    source, message = BAD_ATTACKS[case]
    installed("theirs", source, attacks="mine = theirs:f")
    code, _, err = bench("run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "mine", "--n", "2", "--dry-run")
    assert code == 2 and "attack 'mine' of theirs 1.2" in err and message in err


def test_an_unknown_attack_brings_the_added_ones_too(example, bench):
    code, _, err = bench("run", "--model", "rdi_smallcnn", "--dataset", "digits", "--attack", "cornr", "--n", "2")
    assert code == 2 and "did you mean 'corner'" in err


BAD_LOADERS = {
    "raises": ("1 / 0", "ZeroDivisionError"),
    "returns something else": ("return 3", "returned int"),
    "another name": ('return Split("x", split, *made(split, input_shape), 4, "-")', "its loader returned ('x', 'test'"),
    "another shape": ('return Split("stripes", split, *made(split, (1, 8, 9)), 4, "-")', "(1, 8, 9)"),
    "labels out of range": ('return Split("stripes", split, *made(split, input_shape), 3, "-")', "labels must be 0..2"),
}


@pytest.mark.parametrize("case", BAD_LOADERS)
def test_a_loader_that_fails_is_one_clear_message(case, installed, tmp_path):
    body, message = BAD_LOADERS[case]
    made = "def made(split, shape):\n    return np.zeros((N[split], *shape), np.float32), np.arange(N[split]) % 4\n"
    source = EXAMPLE.replace("    seed = list(N).index(split)", f"    {body}\n    seed = 0") + made
    installed("theirs", source, datasets="x = theirs:stripes")
    with pytest.raises(UserError, match=re.escape(message)):
        load_split("stripes", "test", (1, 8, 8), tmp_path)


def test_attacks_of_the_same_class_name_as_ours_do_not_share_results(installed):
    from exitbench.attacks.regions import ThreatModel
    from exitbench.models.spec import describe, digest

    source = EXAMPLE.replace("class Corner", "class Clean").replace("Corner(", "Clean(")
    installed("theirs", source)
    from theirs import Clean as Theirs

    from exitbench.attacks.clean import Clean as Ours

    assert digest(Theirs(ThreatModel("Linf", 0.1))) != digest(Ours())
    assert (describe(Ours())["type"], describe(Theirs(ThreatModel("Linf", 0.1)))["type"]) == ("Clean", "theirs.Clean")


def test_ours_are_known_without_any_package():
    assert "rdi_resnet38" in model_names()
    assert dataset_card("cifar10").input_shape == (3, 32, 32)
