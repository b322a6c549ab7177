"""The commands of docs/your-own-model.md, and the examples of the README, run as they stand but on fewer images."""

import re
import runpy
import shlex
import sys

import pytest

from exitbench.cli.main import main
from tests.toys import ROOT

pytestmark = pytest.mark.long

PAGE = (ROOT / "docs" / "your-own-model.md").read_text(encoding="utf-8")


def blocks(language, page=PAGE):
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """Runs a command line of the page in this process and hands back what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def run(command):
        if "check" not in command:  # what a gate can see depends on n
            command = re.sub(r"--n \d+", "--n 4 --steps 2 --budget 10", command)
        program, *arguments = shlex.split(command, comments=True)
        assert program == "python"
        if arguments[:2] != ["-m", "bench"]:
            runpy.run_path(arguments[0], run_name="__main__")
            return capsys.readouterr().out
        monkeypatch.setattr(sys, "argv", arguments[1:])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        expected = re.search(r"# exit code (\d)", command)
        assert left.value.code == int(expected[1] if expected else 0), f"{command}\n{out}\n{err}"
        return out

    return run


def test_the_page_does_what_it_says(shell, tmp_path):
    source, damage = blocks("python")
    (tmp_path / "tiny_exits.py").write_text(source)
    (tmp_path / "damage.py").write_text(damage)
    commands = "".join(blocks("sh")).splitlines()
    _, costs, under, run, verified, made, again, reseeded, _, damaged = map(shell, commands)
    assert (tmp_path / "tiny_exits.pt").stat().st_size > 0
    assert re.search(r"2 +0\.0887 ", costs) and "leaving at each exit: 100 100" in under
    assert "tiny_exits.make on digits test" in run and "worst case" in run
    clean = re.search(r"none \(clean\) *│ +([\d.]+)", run)
    assert float(clean[1]) >= 50, "a trained network: chance is 10"
    assert "0 mismatches" in verified

    assert "wrote baselines/tiny_exits.make-tiny_exits-digits-Linf-0.05.json" in made
    assert "PASS" in again and "right to wrong" not in again
    assert "PASS" in reseeded and "seed 1" in reseeded
    assert "FAIL" in damaged and re.search(r"worst case.* REGRESSION", damaged) and "worst case: right to wrong: " in damaged


def test_the_examples_of_the_readme(tmp_path, monkeypatch, capsys, bench):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(blocks("sh", readme)[0])
    assert program == "exitbench" and bench(*arguments, "--dry-run")[0] == 0
    (example,) = blocks("python", readme)
    assert "n=32" in example
    exec(example.replace("n=32", "n=4"), {})  # noqa: S102
    assert re.match(r"[\d.]+ % \([\d.]+ - [\d.]+\) [\d.]+ % ", capsys.readouterr().out)
