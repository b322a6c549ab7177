"""Every column of every CSV is read back by pandas as what it is: texts as these texts, numbers as numbers."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from exitbench.report.csv_file import NUMBERS, to_csv
from exitbench.report.latency.latency import COLUMNS as LATENCY
from exitbench.report.leaderboard.table import COLUMNS as LEADERBOARD
from exitbench.report.leaderboard.table import leaderboard
from exitbench.report.page.curves import network_of, read_curves
from exitbench.report.robustbench.table import COLUMNS as COST_AXIS
from exitbench.report.sweep.table import COLUMNS as SWEEP
from exitbench.scoring.load import evaluations
from exitbench.store.csv_text import digest_text, plain, text_in
from tests.bench.evaluated import evaluate
from tests.bench.records import record_of

TEXTS = {
    "leaderboard": "model training weights source policy calibration dataset data norm attack method latency_on exits_taken "
    "exit_accuracy status flags note",
    "sweep": "model training weights dataset data norm rule point policy calibration exits_taken status flags",
    "latency": "model training weights dataset policy exit machine device torch",
    "cost axis": "network kind published_front unreliable training policy architecture venue link status flags",
}
"""The columns of each kind of table that are texts; all others are numbers or truth values."""
COLUMNS = {"leaderboard": LEADERBOARD, "sweep": SWEEP, "latency": LATENCY, "cost axis": COST_AXIS}

LOOKALIKES = ["nan", "NaN", "NA", "null", "None", "N/A", "inf", "-inf", "1e5", "6944e2726129", "007", "64", "0.5833", "6 42"]
LOOKALIKES += [
    "True",
    "FALSE",
    "=1+1",
    "-",
    "'",
    "'5",
    "+1",
    "1_000",
    " 12",
    "0x1f",
    "infinity",
    "#N/A",
    "<NA>",
    "a,b",
    "two\nlines",
]

any_text = st.sampled_from(LOOKALIKES) | st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8)


def read(text):
    return pd.read_csv(io.StringIO(text))


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_column_of_a_table_is_known_to_be_text_or_number(kind):
    texts = set(TEXTS[kind].split())
    assert texts <= set(COLUMNS[kind]) and not texts & NUMBERS


@given(kind=st.sampled_from(sorted(COLUMNS)), data=st.data())
def test_a_column_is_read_as_what_it_is(kind, data):
    texts, n = TEXTS[kind].split(), data.draw(st.integers(1, 5))
    share = st.floats(0, 1) | st.none()
    rows = {name: data.draw(st.lists(any_text if name in texts else share, min_size=n, max_size=n)) for name in COLUMNS[kind]}
    table = pd.DataFrame(rows)
    found = read(to_csv(table))
    assert list(found.columns) == list(table.columns) and len(found) == n
    for name in table.columns:
        if name in texts:
            assert [plain(cell) if cell != "-" else cell for cell in found[name]] == rows[name], name
        else:
            assert is_numeric_dtype(found[name]), name


@given(st.lists(any_text, min_size=1, max_size=6))
@example(["64", "64"])
@example(["64", "6 42"])
@example(["nan", "net"])
def test_a_text_is_read_as_itself_or_with_its_mark(texts):
    found = read(to_csv(pd.DataFrame({"model": texts})))["model"]
    assert all(isinstance(cell, str) for cell in found) and [plain(cell) for cell in found] == texts


@given(st.text("0123456789abcdef", min_size=64, max_size=64), st.text("0123456789", min_size=11, max_size=11))
def test_no_digest_is_a_number(digest, digits):
    for each in (digest, f"{digits[:4]}e{digits[4:]}{digest}"):
        (found,) = read(to_csv(pd.DataFrame({"weights": [digest_text(each)]})))["weights"]
        assert isinstance(found, str) and found == text_in({"weights": each[:12]}, "weights") == f"sha256:{each[:12]}"


def test_a_board_of_networks_with_one_exit_has_no_numbers_for_texts(tmp_path):
    _, store = evaluate(tmp_path / "store", ("average",))
    table = leaderboard(evaluations(store))
    table["exits_taken"], table["exit_accuracy"] = ["48", "48", None], ["0.5833", "0.2500", None]
    found = read(to_csv(table))
    assert found["exits_taken"].tolist()[:2] == ["'48", "'48"] and found["exit_accuracy"].tolist()[:2] == ["'0.5833", "'0.2500"]
    assert found["weights"].str.startswith("sha256:").all() and found["data"].str.startswith("sha256:").all()
    assert is_numeric_dtype(found["seed"]) and is_numeric_dtype(found["n"]) and not is_bool_dtype(found["n"])
    assert np.isnan(found["seed"].iloc[-1])


@pytest.mark.parametrize("prefix", ["sha256:", ""], ids=["now", "earlier version"])
@pytest.mark.parametrize("name", ["toy", "1e5", "nan", "'", "=1+1", "'5"])
def test_a_sweep_is_found_again_whatever_its_network_is_called(tmp_path, prefix, name):
    record = record_of(model=name, training="64", weights="6944e2726129" * 5, data="1e5" * 21, n=8)
    row = {"model": name, "training": "64", "dataset": "digits", "norm": "Linf", "eps": "0.1", "n": 8}
    row |= {"weights": prefix + record.weights[:12], "data": prefix + record.data[:12]}
    shares = {f"{what}{end}": value for what in ("clean", "worst") for end, value in (("", 0.5), ("_low", 0.4), ("_high", 0.6))}
    row |= {"rule": "entropy", "point": "target", "policy": "entropy:0.3", "mmacs": 1.0, "ra_any": 0.1, **shares}
    (tmp_path / "board.csv").write_text(to_csv(pd.DataFrame([row])), encoding="utf-8")
    assert network_of(record) in read_curves(tmp_path)
