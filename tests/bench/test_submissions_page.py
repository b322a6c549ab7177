"""The commands of docs/submissions.md, from a network of one's own to its row on a board, with fewer images and attacks."""

import re
import runpy
import shlex
import sys
import zipfile
from pathlib import Path

import pytest

from exitbench.api.submit import GIVEN
from exitbench.cli.main import main
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from tests.toys import ROOT

PAGE = (ROOT / "docs" / "submissions.md").read_text(encoding="utf-8")
OWN_MODEL = (ROOT / "docs" / "your-own-model.md").read_text(encoding="utf-8")


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """Runs a command line of the page in this process and hands back its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(command):
        program, *arguments = shlex.split(command.replace("--attack all --n 64", "--attack average --n 4 --steps 2"))
        if program == "unzip":
            quiet, file, into, folder = arguments
            assert (quiet, into) == ("-q", "-d")
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
            return 0, ""
        assert program == "exitbench"
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return left.value.code, out + err

    return run


def test_the_page_leads_from_a_network_of_ones_own_to_a_board(shell, tmp_path):
    (tmp_path / "tiny_exits.py").write_text(re.findall(r"```python\n(.*?)```", OWN_MODEL, flags=re.DOTALL)[0])
    runpy.run_path("tiny_exits.py", run_name="__main__")
    evaluate, pack, unpack, check, merge = "".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)).splitlines()

    code, said = shell(evaluate)
    assert code == 0, said
    code, said = shell(pack)
    assert code == 0 and "wrote tiny_exits.zip" in said and "your code is in it: code/tiny_exits.py" in said, said
    assert re.search(r"SHA-256 [0-9a-f]{64}\n", said) and "not the whole matrix" in said
    shell(unpack)
    assert set(re.findall(r"^\| `([\w.-]+)/?` \|", PAGE, flags=re.MULTILINE)) == {
        path.name for path in Path("submission").iterdir()
    }

    Path("tiny_exits.py").unlink()
    Path("tiny_exits.pt").unlink()
    code, said = shell(check)
    assert code == 0 and "0 mismatches" in said and "extra_data: none; name: Tiny exits" in said, said
    code, said = shell(check.partition(" --model")[0])
    assert code == 2 and "which is not run by itself" in said and "--model submission/code/tiny_exits.py:make" in said

    code, said = shell(merge)
    assert code == 0, said
    (theirs,), (ours,) = (evaluations(Store(Path(folder) / "store")) for folder in ("board", "results"))
    assert theirs.verified and theirs.worst.tolist() == ours.worst.tolist()
    boards = [(Path(folder) / "leaderboards" / "digits-Linf-0.23.csv").read_text() for folder in ("board", "results")]
    assert boards[0] == boards[1]


def test_the_page_names_what_can_be_said_by_field():
    told = PAGE.partition("`--field` gives what cannot be measured: ")[2].partition(".")[0]
    assert re.findall(r"`(\w+)`", told) == list(GIVEN)
