"""The boards in results/published: of the weights that are shipped, with their cards' figures, derived from what is kept."""

import csv
from collections import defaultdict

import pytest

from models.weights import IMPORTED, SHIPPED, known_weights
from tests.toys import ROOT

PUBLISHED = ROOT / "results" / "published"
CARDS = {
    (card.model, card.training, card.dataset): card
    for card, path in known_weights()
    if path.parent == SHIPPED and "measured" in card.details
}


def boards():
    """Accuracies by network, then by attack, and the rows' other figures."""
    found = defaultdict(dict)
    for path in sorted((PUBLISHED / "leaderboards").glob("*.csv")):
        for row in csv.DictReader(path.open(newline="")):
            found[row["model"], row["training"], row["dataset"]][row["attack"]] = row
    return found


BOARDS = boards()


def test_every_measured_card_has_its_rows():
    assert CARDS and set(CARDS) <= set(BOARDS)


@pytest.mark.parametrize("network", BOARDS, ids="-".join)
def test_rows_are_of_the_shipped_weights_and_say_what_their_cards_say(network):
    rows = BOARDS[network]
    imported = network[1] == "authors"
    assert imported or network in CARDS, "only shipped weights are published, and the authors' imported ones"
    for row in rows.values():
        assert row["n"] == "1000" and row["status"] == "ok", "whole, finished, and failed by no trust check"
        assert row["source"].startswith(IMPORTED) == imported
    if imported:
        return
    card = CARDS[network]
    accuracy = card.details["measured"]["accuracy"]
    assert all(row["weights"] == card.sha256[:12] for row in rows.values())
    assert {attack: float(row["accuracy"]) for attack, row in rows.items()} == pytest.approx(accuracy, abs=1e-6)


def test_every_figure_is_derived_from_what_is_kept_of_the_evaluations(bench, tmp_path):
    """The same leaderboards and sweeps, byte for byte, from files that hold every logit of every attack."""
    files = sorted((PUBLISHED / "figures").glob("*.tar.xz"))
    assert {path.name for path in files} == {f"{'-'.join((model, data, how))}.tar.xz" for model, how, data in BOARDS}
    assert bench("merge", *files, "--results", tmp_path)[0] == 0
    assert bench("sweep", "--results", tmp_path)[0] == 0
    for folder in ("leaderboards", "sweeps"):
        kept = {path.name: path.read_bytes() for path in (PUBLISHED / folder).glob("*.csv")}
        assert kept == {path.name: path.read_bytes() for path in (tmp_path / folder).glob("*.csv")} != {}


def test_the_page_and_the_plots_are_of_these_boards():
    page = (PUBLISHED / "index.html").read_text(encoding="utf-8")
    for card in CARDS.values():
        assert card.sha256[:12] in page
    names = {path.stem for path in (PUBLISHED / "leaderboards").glob("*.csv")}
    for ending in ("png", "svg"):
        assert {path.stem for path in (PUBLISHED / "plots").glob(f"*.{ending}")} == names
