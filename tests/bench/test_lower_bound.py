"""A network with an operator that has no formula, and one that the paper's figure is not defined for, from command to page."""

import csv
import re

from exitbench.models.whole_file import write_whole

OWN = """
import torch
from torch import nn

class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return [self.head(torch.fft.rfft(x, n=14).real.flatten(1))]

def spectrum():
    return Spectrum()

def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""

RUN = ("--dataset", "digits", "--n", "8", "--attack", "single:1", "--method", "fgsm")


def test_an_operator_without_a_formula_makes_the_cost_a_lower_bound_everywhere(bench, tmp_path):
    write_whole(tmp_path / "own.py", OWN.encode())
    code, out, err = bench("cost", "own.py:spectrum", "--dataset", "digits")
    assert code == 0, err
    assert "mmacs is a lower bound: no formula for the multiply-accumulates of aten._fft_r2c" in out
    assert "mflops_paper" not in out
    code, out, err = bench(
        "run", "--model", "own.py:spectrum", "--dataset", "digits", "--n", "8", "--attack", "single:1", "--method", "fgsm"
    )
    assert code in (0, 1), err
    assert "lower bound" in out
    (board,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    for row in csv.DictReader(board.open(newline="")):
        assert "lower bound" in row["note"] and "aten._fft_r2c" in row["note"] and row["mflops_paper"] == ""
        assert row["mmacs"] in ("0.000640", "")  # the worst case has no cost of its own
    assert "≥ 0.00" in (tmp_path / "results" / "index.html").read_text(encoding="utf-8")
    (plot,) = (tmp_path / "results" / "plots").glob("*.svg")
    assert plot.stat().st_size > 300


def test_a_network_without_convolutions_has_no_figure_of_the_papers(bench, tmp_path):
    write_whole(tmp_path / "own.py", OWN.encode())
    _, out, _ = bench("cost", "own.py:plain", "--dataset", "digits")
    assert "mflops_paper" not in out and "lower bound" not in out
    _, out, _ = bench(
        "run", "--model", "own.py:plain", "--dataset", "digits", "--n", "8", "--attack", "single:1", "--method", "fgsm"
    )
    assert "mflops_paper" not in out
    (board,) = (tmp_path / "results" / "leaderboards").glob("*.csv")
    assert all(row["mflops_paper"] == "" and "lower bound" not in row["note"] for row in csv.DictReader(board.open(newline="")))
    page = (tmp_path / "results" / "index.html").read_text(encoding="utf-8")
    assert "≥" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL), "but for the scripts of the charts"
