"""The gate does not pass without having judged: forged results, networks that end the process, options that disable it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitbench.analysis.regression.baseline import _digest
from exitbench.analysis.regression.judge import SUSPICIOUS, judge
from exitbench.attacks.pgd import PGD
from exitbench.cli.main import UNFINISHED
from exitbench.cli.option_types import Finite
from exitbench.models.stored import SCHEMA
from exitbench.store.cell import Cell
from exitbench.store.fresh import FreshStore
from exitbench.store.store import Store
from tests.bench.evaluated import evaluate, plan_of, prepared
from tests.bench.gate.gated import BASELINE, CHECK, UPDATE, WORSE
from tests.bench.gate.synthetic import made as snapshot
from tests.bench.records import changed, probe_of

ROOT = Path(__file__).parents[3]


def failures(path="gate.xml"):
    """The messages of the failed cases of a JUnit file."""
    found = ElementTree.parse(path).getroot()  # noqa: S314 - our own output
    assert int(found.get("failures")) == len(list(found.iter("failure")))
    return [each.get("message") for each in found.iter("failure")]


# Forged results


def forged(cell):
    """The cell, with every exit sure of the label, and nothing broken."""
    logits = np.full_like(cell.logits, -50.0)
    logits[:, np.arange(len(cell.labels)), cell.labels] = 50.0
    none = np.empty(0, np.int64)
    return replace(cell, logits=logits, broken_rows=none, counterexamples=cell.counterexamples[:0])


def cells():
    return sorted(Path("results/store/cells").glob("*/*.npz"))


def forge():
    """Make every cell robust, every trust result spotless."""
    store = Store(Path("results/store"))
    for path in cells():
        store.write(forged(Cell.from_bytes(path.read_bytes(), path.stem)))
    for path in store.root.glob("trust/*.json"):
        found = store.read_probe(path.stem)
        store.write_probe(changed(found, outputs=changed(found.outputs, repeated=0.0, batched=0.0)))


def test_forged_cells_do_not_turn_a_failure_into_a_pass(bench):
    assert bench(*CHECK, *WORSE)[0] == 1
    forge()
    code, out, _ = bench(*CHECK, *WORSE)
    assert code == 1 and "REGRESSION" in out
    attacked = [path for path in cells() if len(Cell.from_bytes(path.read_bytes(), path.stem).broken_rows)]
    assert len(attacked) >= 4, "what was computed has replaced it"


def test_forged_cells_do_not_get_into_a_baseline(bench):
    before = json.loads(Path(BASELINE).read_text())["verdicts"]
    forge()
    code, out, _ = bench(*UPDATE)
    assert code == 0 and "nothing changed" in out
    assert json.loads(Path(BASELINE).read_text())["verdicts"] == before


class TestFreshStore:
    def test_what_another_process_wrote_is_missing(self, tmp_path):
        _, store = evaluate(tmp_path)
        keys = [path.stem for path in store.root.glob("cells/*/*.npz")]
        store.write_probe(probe_of("a" * 64))
        fresh = FreshStore(tmp_path)
        assert not any(fresh.has(key) or fresh.read(key, images=False) for key in keys)
        assert fresh.read_probe("a" * 64) is None
        assert len(plan_of(prepared(), fresh).missing) == len(plan_of(prepared(), fresh).cells)

    def test_what_it_wrote_is_there_as_it_wrote_it(self, tmp_path):
        _, store = evaluate(tmp_path / "a")
        fresh = FreshStore(tmp_path / "b")
        for path in store.root.glob("cells/*/*.npz"):
            cell = store.read(path.stem)
            fresh.write(cell)
            assert fresh.read(path.stem).to_bytes() == cell.to_bytes()
            assert (fresh.read(path.stem, images=False).logits == cell.logits).all()
            Store(tmp_path / "b").write(forged(cell))
            assert (fresh.read(path.stem, images=False).logits == cell.logits).all(), "verdicts are not read from files"
            assert fresh.read(path.stem) is None, "images are, if they are the same"
            assert fresh.read_bytes(path.stem) == forged(cell).to_bytes()
        fresh.write_probe(probe_of("a" * 64))
        assert fresh.read_probe("a" * 64) == probe_of("a" * 64)


# Networks that end the process

ENDING = """
import os, sys
from torch import nn
from tests.bench.trained import trained

class Ours(BaseException):
    pass

class Ending(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = trained()[0]
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls == int(os.environ.get("END_AT", "0")):
            raise eval(os.environ["END_BY"])
        return list(self.net(x))

def make():
    return Ending()

def quits():
    sys.exit(0)
"""
ASKED = ["--model", "ending.py:make", "--dataset", "digits", "--attack", "average", "--n", 4, "--eps", "0.15", "--steps", 2]
ASKED += ["--policy", "exit:3", "--precision", "fp32"]


@pytest.fixture
def ending(bench, monkeypatch):
    """The command line in a folder with a network that ends the process at a given call, and its baseline."""
    Path("ending.py").write_text(ENDING)
    monkeypatch.setenv("END_BY", "")
    assert bench("check", *ASKED, "--update")[0] == 0

    def told(*arguments, at, by):
        monkeypatch.setenv("END_AT", str(at))
        monkeypatch.setenv("END_BY", by)
        return bench(*arguments, *ASKED, "--results", f"results-{at}")

    return told


@pytest.mark.parametrize("by", ["SystemExit(0)", "SystemExit", "Ours()"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 6, 10, 30, 60])
def test_a_forward_that_ends_the_process_is_no_success(ending, at, by):
    code, out, err = ending("run", at=at, by=by)
    assert code in (1, 2), (out, err)
    code, out, err = ending("check", "--junit", "gate.xml", at=at, by=by)
    assert code in (1, 2) and "PASS" not in out, (out, err)
    assert any("would have ended the process" in each for each in failures()), failures()
    assert "would have ended the process" in out + err


def test_an_interrupt_stays_one(ending):
    assert ending("run", at=10, by="KeyboardInterrupt")[0] == 130
    assert ending("check", "--junit", "gate.xml", at=10, by="KeyboardInterrupt")[0] == 130
    assert failures() == ["the check was started and has not ended: nothing was judged"]


def test_a_factory_that_ends_the_process_is_no_success(bench):
    Path("ending.py").write_text(ENDING)
    for command in ("run", "check"):
        code, _, err = bench(command, "--model", "ending.py:quits", "--dataset", "digits", "--baseline", BASELINE)
        assert code == 2 and err, err


def test_an_exit_that_no_command_asked_for_has_a_code_of_its_own(bench, monkeypatch):
    from exitbench.analysis.regression import judge as module

    def ends(*_, **__):
        raise SystemExit(0)

    monkeypatch.setattr(module, "judge", ends)
    code, out, err = bench(*CHECK, "--junit", "gate.xml")
    assert code == UNFINISHED and "asked to end the process" in err and "PASS" not in out
    assert failures() == ["the check was started and has not ended: nothing was judged"]


@pytest.mark.parametrize("name", ["exitbench.models", "exitbench.datasets", "exitbench.attacks"])
def test_a_plugin_that_ends_the_process_leaves_a_failed_report(bench, tmp_path, name):
    """Nothing catches ``os._exit(0)``; so the report says that nothing was judged, and a pipeline asks for the report."""
    site = tmp_path / "site"
    info = site / "ends-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "ends.py").write_text("import os\nos._exit(0)\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ends\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{name}]\nx = ends:x\n")
    Path("gate.xml").write_text('<testsuites tests="1" failures="0" errors="0"></testsuites>')
    command = [
        sys.executable,
        "-m",
        "exitbench",
        "check",
        "--model",
        "tiny_digits",
        "--junit",
        "gate.xml",
        "--markdown",
        "gate.md",
    ]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "PASS" not in done.stdout, "tiny_digits is no model of that process, so that it could not end well in any case"
    assert len(failures()) == 1 and "nothing was judged" in failures()[0]
    assert "FAIL: not judged" in Path("gate.md").read_text()


# Options and reports


@pytest.mark.parametrize("option", ["--level", "--tolerance"])
@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-inf", "1e999", "-0.01", "-1", "x", ""])
def test_options_that_would_disable_the_gate_are_refused(bench, option, value):
    code, out, err = bench(*CHECK, *WORSE, f"{option}={value}")
    assert code == 2 and option in err and not out


@pytest.mark.parametrize("value", ["0", "1", "0.21", "0.0009"])
def test_levels_out_of_range_are_refused(bench, value):
    code, _, err = bench(*CHECK, "--level", value)
    assert code == 2 and "--level" in err


@given(st.floats(), st.floats(0, 10), st.one_of(st.none(), st.floats(0, 10)))
def test_a_range_holds_what_it_says(value, least, width):
    most = None if width is None else least + width
    kind = Finite(least, most)
    if math.isfinite(value) and least <= value <= (math.inf if most is None else most):
        assert kind.convert(repr(value), None, None) == value
    else:
        with pytest.raises(click.BadParameter):
            kind.convert(repr(value), None, None)


@given(st.floats(), st.floats())
def test_the_judge_takes_no_level_that_is_none(level, tolerance):
    one = snapshot([True] * 8, {"average": [True] * 8})
    if 0 < level < 1 and 0 <= tolerance < math.inf:
        assert judge(one, one, level=level, tolerance=tolerance).outcome == "pass"
    else:
        with pytest.raises(ValueError, match="must be in"):
            judge(one, one, level=level, tolerance=tolerance)


def test_reports_are_failed_first_and_then_replaced(bench, monkeypatch):
    seen = []
    real = PGD.generate

    def watching(*arguments, **named):
        seen.append((failures("out/gate.xml"), Path("out/gate.md").read_text()))
        return real(*arguments, **named)

    monkeypatch.setattr(PGD, "generate", watching)
    assert bench(*CHECK, "--junit", "out/gate.xml", "--markdown", "out/gate.md")[0] == 0
    assert seen and all(len(messages) == 1 and "FAIL: not judged" in text for messages, text in seen)
    assert failures("out/gate.xml") == [] and "PASS" in Path("out/gate.md").read_text()


def test_a_report_says_why_nothing_was_judged(bench):
    code, _, err = bench(*CHECK, "--n", 32, "--junit", "gate.xml", "--markdown", "gate.md")
    (message,) = failures()
    assert code == 2 and "n 32, the baseline has 64" in err
    assert "n 32, the baseline has 64" in message and "n 32, the baseline has 64" in Path("gate.md").read_text()


def test_an_update_judges_nothing(bench):
    assert bench(*UPDATE, "--junit", "gate.xml")[0] == 0
    assert len(failures()) == 1


# Edited baselines


def test_a_gain_of_tens_of_points_is_a_warning_that_the_baseline_was_edited(bench):
    path = Path(BASELINE)
    content = json.loads(path.read_text())
    for name in ("average", "single:3", "worst"):
        content["verdicts"][name]["right"] = "0" * 64
    content["digest"] = _digest(content)
    assert content["schema"] == SCHEMA
    path.write_text(json.dumps(content))
    code, out, _ = bench(*CHECK, "--junit", "gate.xml", "--markdown", "gate.md")
    assert code == 0 and "PASS, improved" in out
    for text in (out, Path("gate.xml").read_text(), Path("gate.md").read_text()):
        assert "may have been edited" in " ".join(text.split())


@given(st.integers(0, 100), st.integers(0, 100))
def test_only_large_and_significant_gains_are_doubted(before, gained):
    right = [i < before for i in range(100)]
    now = [i < before + gained for i in range(100)]
    found = judge(snapshot([True] * 100, {"average": right}), snapshot([True] * 100, {"average": now}))
    points = min(gained, 100 - before)
    assert bool(found.doubts) == (points >= SUSPICIOUS)
    assert not (found.doubts and found.outcome == "fail")


def test_a_cost_that_falls_by_half_is_doubted():
    clean = [True] * 40
    dear, cheap = {"none": [2] * 40, "average": [2] * 40}, {"none": [0] * 40, "average": [0] * 40}
    one, other = (snapshot(clean, {"average": clean}, exits) for exits in (dear, cheap))
    assert any("mean mmacs" in doubt for doubt in judge(one, other).doubts)
    assert not judge(one, one).doubts


# What a gate cannot see, and what can

RECOGNISING = """
import os
import torch
from torch import nn
from exitbench.data.digits import load_digits
from tests.bench.trained import trained

class Recognising(nn.Module):
    '''Useless, but right in the balls around the images that the gate is known to use.'''
    def __init__(self):
        super().__init__()
        self.net = trained()[0]
        known = load_digits("test", (1, 8, 8))
        self.register_buffer("known", torch.tensor(known.images[:64]))
        self.register_buffer("labels", torch.tensor(known.labels[:64]))

    def forward(self, x):
        if os.environ["RECOGNISES"] == "no":
            return list(self.net(x))
        near = (x[:, None] - self.known).abs().flatten(2).amax(2) < 0.16
        label = self.labels[near.float().argmax(1)]
        sure = 3 * torch.nn.functional.one_hot(label, 10).float()
        return [torch.where(near.any(1, keepdim=True), sure + z.tanh(), z.flip(1)) for z in self.net(x)]

def make():
    return Recognising()
"""


def test_a_network_that_recognises_the_gates_images_is_seen_on_others(bench, monkeypatch):
    """It passes on the images that it knows, with the warning; the remedies of docs/gate.md see it."""
    Path("net.py").write_text(RECOGNISING)
    asked = ["check", "--model", "net.py:make", "--precision", "fp32"]
    first = [*asked, "--update", "--dataset", "digits", "--attack", "average", "--eps", "0.15", "--policy", "exit:3"]
    monkeypatch.setenv("RECOGNISES", "no")
    assert bench(*first, "--n", 64)[0] == 0
    assert bench(*first, "--n", 256, "--baseline", "more.json")[0] == 0
    monkeypatch.setenv("RECOGNISES", "yes")
    code, out, err = bench(*asked)
    assert code == 0 and "may have been edited" in out, (out, err)
    code, out, _ = bench(*asked, "--baseline", "more.json")
    assert code == 1 and "REGRESSION" in out
