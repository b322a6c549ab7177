"""An evaluation on a grid of pixel values: every stored image is on it, and everything that names a threat model names it."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from msgspec import structs
from torch import Tensor, nn

import exitbench
from exitbench.analysis.compare.pairs import unpaired
from exitbench.analysis.regression.baseline import default_path, find_baseline, from_text, to_text
from exitbench.analysis.regression.snapshot import measured
from exitbench.analysis.sweep.choose import Wanted
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.settings import AttackSettings
from exitbench.checks.again import trust_mismatches
from exitbench.checks.probe import ensure_probe
from exitbench.cli.main import cli
from exitbench.data.split import Split
from exitbench.errors import UserError
from exitbench.report.page.command import commands
from exitbench.report.page.curves import network_of
from exitbench.report.write import write_reports
from exitbench.runner.off_grid import off_grid_note
from exitbench.scoring.load import evaluations
from exitbench.store.certificate import certificate_key
from exitbench.store.store import Store
from exitbench.verify.check import verify
from exitbench.verify.evidence import record_mismatches
from exitbench.verify.gather import gather
from exitbench.verify.results import find_results, reported
from exitbench.verify.scorer import Scorer
from tests.bench.evaluated import NET, evaluate, prepared, toy_split
from tests.bench.trained import digits, trained
from tests.bench.trained import ready as trained_ready

GRID = 255
N = 6


def on_grid_split(n: int = N) -> Split:
    split = toy_split(n)
    return replace(split, images=(np.round(split.images * GRID) / GRID).astype(np.float32))


def ready(norm="Linf", grid=GRID, split=None, **knobs):
    settings = AttackSettings(
        ThreatModel(norm, {"Linf": 0.15, "L2": 0.5}[norm], grid), steps=2, step_size=0.06, budget=40, **knobs
    )
    return replace(prepared(n=N), settings=settings, split=split or on_grid_split())


def is_on(images):
    return (images == (np.round(images.astype(np.float64) * GRID) / GRID).astype(np.float32)).all()


def stored(store):
    """Every attacked cell of a store with its attack's name."""
    return [
        (attack.name, cell)
        for record in store.runs()
        for attack in record.attacks[1:]
        for key in attack.keys
        if (cell := store.read(key)) is not None
    ]


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.4), ("L2", 2.5)])
def test_every_stored_image_is_on_the_grid_and_in_the_ball_whatever_the_attack(norm, eps, tmp_path):
    """Half of the clean images are off the grid; the radius is one at which AutoAttack soon has nothing left to do."""
    images = digits().images[1400 : 1400 + N].copy()
    images[::2] = np.round(images[::2] * GRID) / GRID
    split = Split("digits", "test", images, digits().labels[1400 : 1400 + N], 10, "half of it on the grid")
    ball = ThreatModel(norm, eps, GRID)
    settings = AttackSettings(ball, steps=5, step_size=eps / 4, budget=60)
    names = ("all", "cascade", f"torchattacks:PGD{'' if norm == 'Linf' else 'L2'}(steps=5)")
    outcomes, store = evaluate(tmp_path, names, replace(trained_ready(n=N), settings=settings, split=split))
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    clean, broken = split.batch(0, N).x, set()
    for name, cell in stored(store):
        found, rows = torch.from_numpy(cell.counterexamples), cell.broken_rows
        assert is_on(cell.counterexamples), name
        assert not len(rows) or ball.distance(found, clean[rows]).max() <= eps + 1e-5, name
        broken |= {name} if len(rows) else set()
    assert {"adaptive", "average", "autoattack", "cascade", "slowdown:free", "max_average", "single:2", names[-1]} <= broken


def test_the_attack_without_a_ball_is_rounded_too_and_counts_where_it_is_in_the_ball(tmp_path):
    _, store = evaluate(tmp_path, ("average",), ready(method="wrm", gamma=0.05))
    ((_, cell),) = stored(store)
    assert len(cell.counterexamples) and is_on(cell.counterexamples)
    assert cell.header["attack"]["region"] == {"type": "Penalty", "gamma": 0.05, "grid": GRID}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One network with and without the grid in one store, with trust checks and reports."""
    folder = tmp_path_factory.mktemp("both")
    for grid in (None, GRID):
        _, store = evaluate(folder / "store", ("average", "adaptive"), ready(grid=grid))
    assert ensure_probe(ready(), 0, store) is None
    write_reports(evaluations(store), folder)
    return folder


def of(folder, grid):
    return next(each for each in evaluations(Store(folder / "store")) if each.record.grid == grid)


def claims_of(folder, grid):
    found = find_results(str(folder), folder)
    (records,) = (records for records in found.records if records[0].grid == grid)
    return gather(found.store, records, on_grid_split(), {})


def test_cells_are_apart_but_those_of_clean_images(both):
    plain, gridded = (of(both, grid).record for grid in (None, GRID))
    keys = [{attack.name: set(attack.keys) for attack in record.attacks} for record in (plain, gridded)]
    assert keys[0]["none"] == keys[1]["none"]
    assert not any(keys[0][name] & keys[1][name] for name in ("average", "adaptive"))
    assert certificate_key(plain) == certificate_key(gridded), "a certificate is of the whole ball"
    assert plain.trust != gridded.trust


def test_reports_have_a_board_of_its_own_and_no_column_without_a_grid(both):
    rows = {}
    for path in (both / "leaderboards").glob("*.csv"):
        with path.open(newline="") as file:
            rows[path.stem] = list(csv.DictReader(file))
    (name,) = (name for name in rows if not name.endswith("-grid255"))
    plain, gridded = rows[name], rows[f"{name}-grid255"]
    assert all("grid" not in row for row in plain) and all(row["grid"] == "255" for row in gridded)
    assert "Linf 0.15, grid 255" in (both / "index.html").read_text()
    for grid in (None, GRID):
        record = of(both, grid).record
        worst = int(of(both, grid).worst.sum())
        assert reported(both / "store", record)["worst"] == worst


def test_the_page_tells_the_command_and_comparisons_keep_apart(both):
    plain, gridded = (of(both, grid).record for grid in (None, GRID))
    assert "--grid 255" in commands(of(both, GRID))[0] and "--grid" not in commands(of(both, None))[0]
    assert list(unpaired(plain, gridded)) == ["grid none and 255"] and not list(unpaired(gridded, gridded))
    assert network_of(plain) != network_of(gridded)
    assert [Wanted(grid=GRID).takes(of(both, grid)) for grid in (None, GRID)] == [False, True]


def test_a_baseline_keeps_its_grid(both, tmp_path):
    for grid in (None, GRID):
        settings = {"attacks": ["average", "adaptive"], "n": N, **({"grid": grid} if grid else {})}
        snapshot = measured(of(both, grid), settings)
        path = default_path(tmp_path, snapshot.subject)
        path.write_text(to_text(snapshot))
        assert ("grid255" in path.name) == ('"grid"' in path.read_text()) == bool(grid)
        assert from_text(path.read_text(), "it").subject.grid == grid
    assert find_baseline(tmp_path, {"model": "toy"})[1].subject.grid is None
    assert find_baseline(tmp_path, {"model": "toy", "grid": GRID})[1].subject.grid == GRID
    assert find_baseline(tmp_path, {"model": "toy", "grid": 16}) is None


def test_verify_believes_it_and_its_trust_checks(both):
    for grid in (None, GRID):
        claims = claims_of(both, grid)
        assert not verify(claims, Scorer(NET), "0" * 64).mismatches
    record = of(both, GRID).record
    probe = Store(both / "store").read_probe(record.trust)
    assert probe is not None and trust_mismatches(record, probe, NET, on_grid_split(), None) == []


def test_verify_sees_an_image_off_the_grid(both):
    claims = claims_of(both, GRID)
    images = claims.images.copy()
    images[0, 0, 0, 0] += 1e-4 if images[0, 0, 0, 0] < 0.5 else -1e-4
    told = [str(each) for each in verify(replace(claims, images=images), Scorer(NET), "0" * 64).mismatches]
    assert any("1 pixels are no multiples of 1/255" in each for each in told)
    pretended = replace(claims_of(both, None), subject=structs.replace(claims.subject, grid=GRID))
    assert any("no multiples of 1/255" in str(each) for each in verify(pretended, Scorer(NET), "0" * 64).mismatches)


def test_a_record_that_only_says_so_is_seen(both):
    record = structs.replace(of(both, None).record, grid=GRID)
    assert any("another grid" in str(each) for each in record_mismatches(record))


class Hidden(nn.Module):
    """An undefended network on images of 8 bits; everywhere else it answers as on the nearest clean image."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.net, self.clean = trained()[0], clean.flatten(1)
        self.kept = self.net(clean)

    def forward(self, x: Tensor) -> Tensor:
        logits, nearest = self.net(x), torch.cdist(x.detach().flatten(1), self.clean).argmin(1)
        on = ((x * GRID - (x * GRID).round()).abs() < 0.03).flatten(1).all(1)
        return torch.where(on[None, :, None], logits, self.kept[:, nearest] + logits - logits.detach())


def test_a_network_that_is_undefended_on_8_bit_images_alone_is_told_what_it_is():
    batch = digits().batch(1400, 1416)  # on 8, what the checks find is evidence on some processors and too little on others
    x = (batch.x * GRID).round() / GRID

    def told(net, grid):
        asked = {"attacks": "average", "eps": 0.4, "steps": 5, "policy": "exit:3", "progress": False}
        return exitbench.evaluate(net.eval(), dataset=(x, batch.y), grid=grid, **asked)

    hidden, seen = told(Hidden(x), None), told(Hidden(x), GRID)
    assert [flag.name for flag in hidden.flags if flag.level == "failure"]
    assert hidden.samples["worst"][:8].mean() > 0.5
    assert seen.worst_case.value == 0 and seen.threat_model.endswith("Linf 0.4, grid 255")
    assert not [flag.name for flag in seen.flags if flag.level == "failure"], "on the grid it is an honest network"


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "65536"])
@pytest.mark.parametrize("command", ["run", "check", "sweep"])
def test_a_grid_that_is_none_ends_with_a_message_and_exit_code_2(command, value, tmp_path):
    arguments = ["--model", "rdi_smallcnn", "--grid", value, "--results", str(tmp_path)]
    ended = CliRunner().invoke(cli, [command, *arguments])
    assert ended.exit_code == 2 and "--grid" in ended.output


def test_clean_images_off_the_grid_are_said(tmp_path):
    batches = [toy_split(N).batch(0, N)]
    assert off_grid_note(batches, ThreatModel("Linf", 0.1, None)) is None
    assert off_grid_note([on_grid_split().batch(0, N)], ThreatModel("Linf", 0.1, GRID)) is None
    assert off_grid_note(batches, ThreatModel("Linf", 0.1, GRID)).startswith("6 of 6 clean images are off the grid of 1/255")
    with pytest.raises(UserError, match="nothing to attack"):
        off_grid_note(batches, ThreatModel("Linf", 1e-4, GRID))
