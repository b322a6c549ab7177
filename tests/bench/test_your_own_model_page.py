"""The commands of docs/your-own-model.md, run as they stand but on fewer images."""

import re
import runpy
import shlex
import sys

import pytest

from bench.cli.main import main
from tests.toys import ROOT

PAGE = (ROOT / "docs" / "your-own-model.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """Runs a command line of the page in this process and hands back what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(command):
        program, *arguments = shlex.split(re.sub(r"--n \d+", "--n 4 --steps 2 --budget 10", command))
        assert program == "python"
        if arguments[:2] != ["-m", "bench"]:
            runpy.run_path(arguments[0], run_name="__main__")
            return capsys.readouterr().out
        monkeypatch.setattr(sys, "argv", arguments[1:])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert left.value.code == 0, f"{command}\n{err}"
        return out

    return run


def test_the_page_does_what_it_says(shell, tmp_path):
    (source,) = blocks("python")
    (tmp_path / "tiny_exits.py").write_text(source)
    _, costs, under, run, verified = map(shell, "".join(blocks("sh")).splitlines())
    assert (tmp_path / "tiny_exits.pt").stat().st_size > 0
    assert re.search(r"2 +0\.0887 ", costs) and "leaving at each exit: 100 100" in under
    assert "tiny_exits.make on digits test" in run and "worst case" in run
    clean = re.search(r"none \(clean\) *│ +([\d.]+)", run)
    assert float(clean[1]) >= 50, "a trained network: chance is 10"
    assert "0 mismatches" in verified
