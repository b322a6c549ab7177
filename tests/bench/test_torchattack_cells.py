"""torchattacks' attacks through the harness: certified like any other, and never mistaken for the real AutoAttack."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from exitbench.api.names import separated
from exitbench.report.leaderboard.table import leaderboard
from tests.bench.evaluated import SETTINGS, evaluate, only_evaluation, prepared, toy_policy
from tests.processes import run
from tests.toys import ROOT

NAME = "torchattacks:PGD(steps=2,alpha=0.08)"
PACKAGE = f"torchattacks {version('torchattacks')}"


def test_it_is_certified_stored_and_reported_with_its_package(tmp_path):
    outcomes, store = evaluate(tmp_path, [NAME, "torchattacks:FGSM", "average"], prepared(toy_policy()))
    assert all(outcome.error is None for outcome in outcomes)
    evaluation = only_evaluation(store)
    by_name = {result.name: result for result in evaluation.attacks}
    assert by_name[NAME].implementation == PACKAGE and by_name["average"].implementation is None
    assert by_name[NAME].backwards == 2
    assert (~by_name[NAME].correct & evaluation.clean.correct).any()
    table = leaderboard([evaluation]).set_index("attack")
    assert table.loc[NAME, "method"] == f"alpha=0.08, steps=2, {PACKAGE}"
    assert table.loc["torchattacks:FGSM", "method"] == f"its defaults, {PACKAGE}"
    again, _ = evaluate(tmp_path, [NAME], prepared(toy_policy()))
    assert again == []


def test_results_do_not_depend_on_what_ran_before(tmp_path):
    """Each slice has its own seed: a slice computed alone is the slice computed in its turn."""
    _, whole = evaluate(tmp_path / "whole", [NAME])
    _, part = evaluate(tmp_path / "part", [NAME])
    attack = only_evaluation(whole).record.attacks[1]
    expected = [whole.read(key).logits.tobytes() for key in attack.keys]
    for key in attack.keys[:2]:
        (part.root / "cells" / key[:2] / f"{key}.npz").unlink()
    evaluate(tmp_path / "part", [NAME, "average"])
    assert [part.read(key).logits.tobytes() for key in attack.keys] == expected


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("torchattacks:GN(std=0.9)", f"leave the Linf ball of {SETTINGS.region.eps:g}"),
        ("torchattacks:PGD(steps='many')", "TypeError"),
    ],
)
def test_what_leaves_the_ball_or_crashes_is_an_error_that_says_so(tmp_path, name, why):
    outcomes, store = evaluate(tmp_path, [name], prepared(n=8))
    assert [why in (outcome.error or "") for outcome in outcomes] == [False, True]
    evaluation = only_evaluation(store)
    assert evaluation.attacks == () and why in evaluation.unfinished[0].reason
    assert (evaluation.worst == evaluation.clean.correct).all()


def test_it_is_no_part_of_the_matrix_and_cannot_complete_it(tmp_path):
    from exitbench.attacks.presets import matrix_names

    assert not any(name.startswith("torchattacks") for name in matrix_names(3))
    _, store = evaluate(tmp_path, ["torchattacks:FGSM"], prepared(n=8))
    assert not only_evaluation(store).complete


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("single, average,", ["single", "average"]),
        ("torchattacks:PGD(steps=4,alpha=0.1),max", ["torchattacks:PGD(steps=4,alpha=0.1)", "max"]),
        ("torchattacks:Pixle(x_dimensions=(2,10),restarts=2),a", ["torchattacks:Pixle(x_dimensions=(2,10),restarts=2)", "a"]),
        ("a),b", ["a)", "b"]),
        (",", []),
    ],
)
def test_commas_in_parentheses_are_part_of_a_name(text, names):
    assert separated(text) == names


def test_the_package_is_imported_for_nothing_but_its_own_attacks():
    code = "import sys, exitbench.runner.plan, exitbench.report.write, exitbench.cli.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "torchattacks" not in done.stdout.split()


def test_a_wrong_name_on_the_command_line_is_one_clear_message(tmp_path):
    command = ["run", "--model", "rdi_smallcnn", "--dataset", "digits", "--n", "4", "--attack", "torchattacks:pgdl2"]
    done = run(*command, "--results", tmp_path, cwd=ROOT)
    assert done.returncode == 2 and "did you mean 'torchattacks:PGDL2'" in done.stderr
    assert "Traceback" not in done.stderr
