"""``bench check`` and ``bench compare`` end to end, on a small net trained in seconds: every exit code, and both stories."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from exitbench.attacks.pgd import PGD
from exitbench.checks import probe
from exitbench.models.policy_text import policy_text
from tests.bench.gate.gated import BASELINE, CHECK, UPDATE, WORSE, N
from tests.bench.records import changed
from tests.bench.trained import trained


def test_the_first_baseline_says_what_it_holds(bench):
    Path(BASELINE).unlink()
    code, out, err = bench(*UPDATE)
    assert code == 0, err
    assert "tiny_digits (good), new: clean 100.00 %, average" in out and f"wrote {BASELINE}: commit it" in out
    code, out, _ = bench(*UPDATE)
    assert code == 0 and "nothing changed" in out


def test_a_rerun_with_another_seed_passes(bench):
    code, out, err = bench(*CHECK)
    assert code == 0 and out.endswith("PASS nothing is significantly worse"), err
    code, out, _ = bench(*CHECK, "--seed", 1)
    assert code == 0 and out.endswith("PASS nothing is significantly worse")


def test_a_planted_regression_fails_and_is_told_everywhere(bench, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "job.md")
    Path("job.md").write_text("before\n")
    code, out, _ = bench(*CHECK, *WORSE, "--markdown", "out/gate.md", "--junit", "out/gate.xml")
    assert code == 1
    assert "REGRESSION" in out and "FAIL" in out and "average: right to wrong: " in out
    markdown = Path("out/gate.md").read_text()
    assert "FAIL: tiny_digits (tiny_digits-digits-worse) on digits test" in markdown
    assert Path("job.md").read_text() == "before\n" + markdown
    root = ElementTree.parse("out/gate.xml").getroot()  # noqa: S314 - our own output
    assert int(root.get("failures")) >= 1

    # The damage accepted as the baseline, the good weights are an improvement; the file says what it is of.
    code, out, _ = bench(*CHECK, *WORSE, "--update")
    assert code == 0 and "training good -> tiny_digits-digits-worse" in out and "average: " in out
    code, out, _ = bench(*CHECK, "--training", "good", "--baseline", BASELINE)
    assert code == 0 and "PASS, improved" in out and "update the baseline" in out


BAD = {
    "no baseline": (
        ["check", "--model", "tiny_2"],
        "there is no baseline of tiny_2 in baselines/; name one with --baseline, or make",
    ),
    "no such training": ([*CHECK, "--training", "none"], "there is no baseline of tiny_digits, none"),
    "no such file": ([*CHECK, "--baseline", "b.json"], "b.json cannot be read"),
    "unknown model": (["check", "--model", "tiny"], "no baseline of tiny"),
    "another n": ([*CHECK, "--n", 32], f"n 32, the baseline has {N}"),
    "another eps": ([*CHECK, "--eps", "0.1", "--baseline", BASELINE], "eps 0.1, the baseline has 0.15"),
    "another norm": ([*CHECK, "--norm", "L2", "--baseline", BASELINE], "norm L2, the baseline has Linf"),
    "another attack": ([*CHECK, "--attack", "average"], "attacks average; the baseline has average, single:3"),
    "other steps": ([*CHECK, "--steps", 5], "attack average: steps 5, the baseline has 20"),
    "another policy": ([*CHECK, "--policy", "exit:1"], "policy exit:1, the baseline has entropy:"),
    "another model": (["check", "--model", "tiny_2", "--baseline", BASELINE], "model tiny_2, the baseline has tiny_digits"),
    "a preset of something else": ([*CHECK, "--preset", "quick"], "the baseline has"),
    "no attack for a new one": (["check", "--model", "tiny_2", "--update"], "name at least one attack"),
}


def test_what_is_no_comparison_is_exit_code_2_and_says_why(bench):
    for case, (arguments, message) in BAD.items():
        code, _, err = bench(*arguments)
        assert (code, message in err) == (2, True), f"{case}: {code} {err}"


def test_an_edited_baseline_is_refused(bench):
    path = Path(BASELINE)
    content = json.loads(path.read_text())
    content["verdicts"]["average"]["right"] = "0" * 64
    path.write_text(json.dumps(content))
    code, _, err = bench(*CHECK)
    assert code == 2 and "was edited or damaged" in err


def test_new_weights_are_judged_under_the_baselines_rule_unless_their_own_is_asked_for(bench):
    code, out, err = bench(*CHECK, *WORSE, "--policy", "own")
    assert code in (0, 1) and "each under its own policy" in out, err
    code, out, _ = bench(*CHECK, *WORSE, "--policy", "own", "--update")
    assert code == 0 and "changed: policy entropy:" in out


def test_an_evaluation_that_is_flagged_fails_and_makes_no_baseline(bench, monkeypatch):
    real = probe.probe

    def suspicious(*arguments):
        found = real(*arguments)
        return changed(found, outputs=changed(found.outputs, repeated=1.0))

    monkeypatch.setattr(probe, "probe", suspicious)
    code, out, _ = bench(*CHECK, "--results", "elsewhere")
    assert code == 1 and "failed trust check: randomised outputs" in out
    path = Path(BASELINE)
    before = path.read_bytes()
    code, _, err = bench(*CHECK, "--results", "elsewhere", "--update")
    assert code == 1 and "no baseline written" in err and "randomised outputs" in err
    assert path.read_bytes() == before


def test_an_evaluation_that_does_not_finish_fails(bench, monkeypatch):
    def crash(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(PGD, "generate", crash)
    code, out, err = bench(*CHECK, "--seed", 7)
    assert code == 1 and "not finished: average: error: MemoryError: no room" in out, err


def test_two_evaluations_stand_side_by_side(bench):
    worse = ["run", "--model", "tiny_digits", "--training", "worse", "--dataset", "digits", "--n", N, "--eps", "0.15"]
    assert bench(*worse, "--policy", policy_text(trained()[1]), "--attack", "average,max")[0] == 0
    code, out, err = bench("compare", "tiny_digits:good", "tiny_digits:worse")
    assert code == 0, err
    assert "A: tiny_digits (good)" in out and "B: tiny_digits (worse)" in out and "mean mmacs" in out
    assert "as only one of the two has it in this form: single:3, max" in out
    plots = Path("results/plots")
    assert (plots / "compare-tiny_digits_good-tiny_digits_worse.png").read_bytes()[:4] == b"\x89PNG"
    first = (plots / "compare-tiny_digits_good-tiny_digits_worse.svg").read_bytes()
    assert bench("compare", "tiny_digits:good", "tiny_digits:worse")[0] == 0
    assert (plots / "compare-tiny_digits_good-tiny_digits_worse.svg").read_bytes() == first

    runs = {json.loads(path.read_text())["training"]: path for path in Path("results/store/runs").iterdir()}
    code, by_run, _ = bench("compare", runs["good"].stem[:12], runs["worse"], "--plot", "p/x")
    assert code == 0 and by_run.split("written:")[0] == out.split("written:")[0]
    assert Path("p/x.svg").exists()

    for arguments, message in (
        (["tiny_digits:good", "tiny_digits:good"], "no evaluation of tiny_digits:good is paired"),
        (["tiny_digits:good", "tiny_2"], "'tiny_2' is no model evaluated in results (there are: tiny_digits:good"),
        (["tiny_digits:good", "runs/nothing.json"], "and no run"),
    ):
        code, _, err = bench("compare", *arguments)
        assert code == 2 and message in err, err
    fewer = ["run", "--model", "tiny_2", "--dataset", "digits", "--eps", "0.15", "--n", 32]
    assert bench(*fewer, "--attack", "average", "--steps", 2)[0] == 0
    code, _, err = bench("compare", "tiny_digits:good", "tiny_2")
    assert code == 2 and f"n {N} and 32. Evaluate both on the same samples" in err
