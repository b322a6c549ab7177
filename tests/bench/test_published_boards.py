"""The boards in results/published: of the weights that are shipped, with their cards' figures, derived from what is kept."""

import csv
import re
from collections import defaultdict

import pytest
import torch

from exitbench.analysis.compare.pairs import compare, unpaired
from exitbench.models.weights import IMPORTED, shipped_weights
from exitbench.report.sweep.table import NOT_ATTACKED
from exitbench.scoring.load import evaluations
from exitbench.store.csv_text import digest_text
from exitbench.store.store import Store
from tests.toys import ROOT

pytestmark = pytest.mark.long

PUBLISHED = ROOT / "results" / "published"
FOUND = (
    (ROOT / "docs" / "findings.md")
    .read_text(encoding="utf-8")
    .partition("\n## Exits against a smaller network\n")[2]
    .partition("\n## ")[0]
)
FOLDERS = sorted(path for path in PUBLISHED.iterdir() if path.is_dir())
"""A results folder for each dataset."""
CARDS = {(card.model, card.training, card.dataset): card for card, _ in shipped_weights() if "measured" in card.details}


def boards():
    """Accuracies by network, then by attack, and the rows' other figures."""
    found = defaultdict(dict)
    for path in sorted(PUBLISHED.glob("*/leaderboards/*.csv")):
        for row in csv.DictReader(path.open(newline="")):
            found[row["model"], row["training"], row["dataset"]][row["attack"]] = row
    return found


BOARDS = boards()
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


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
    assert all(row["weights"] == digest_text(card.sha256) for row in rows.values())
    assert {attack: float(row["accuracy"]) for attack, row in rows.items()} == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_page_and_the_plots_are_of_these_boards(folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    for (_, _, dataset), card in CARDS.items():
        assert (card.sha256[:12] in page) == (dataset == folder.name)
    names = {path.stem for path in (folder / "leaderboards").glob("*.csv")}
    for ending in ("png", "svg"):
        assert {path.stem for path in (folder / "plots").glob(f"*.{ending}")} == names != set()


def test_one_page_has_every_board_and_says_who_the_networks_are():
    page = (PUBLISHED / "index.html").read_text(encoding="utf-8")
    assert all(card.sha256[:12] in page for card in CARDS.values())
    for folder in FOLDERS:
        for path in (folder / "leaderboards").glob("*.csv"):
            assert f'role="tab" id="t-{path.stem}"' in page
    for network in ("RDI-ResNet-38, max-average", "RDI-ResNet-38, authors&#39; weights", "SmallCNN, no defence"):
        assert f">{network}</a>" in page


def tables(text):
    """The rows of each Markdown table, without its headings."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else [] for line in text.splitlines()]
    found = [[]]
    for line in lines:
        if line:
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [rows[2:] for rows in found if rows]


def test_the_findings_are_what_the_board_says_of_every_network():
    stated = {(row[0], re.split("[,:]", row[1])[0]): row[2:] for row in tables(FOUND)[0]}
    board = {network[:2]: rows for network, rows in BOARDS.items() if network[2] == "cifar10"}
    assert stated.keys() == board.keys()
    for network, rows in board.items():
        pgd = rows["max_average" if "max_average" in rows else "single:1"]
        shares = [f"{100 * float(row['accuracy']):.1f}" for row in (rows["none"], pgd, rows["worst"])]
        assert stated[network] == [f"{float(rows['none']['mmacs']):.1f}", *shares]


def test_the_findings_on_mnist_are_the_boards():
    def figures(*network):
        rows = BOARDS[(*network, "mnist")]
        return *(
            f"{100 * float(rows[name]['accuracy']):.1f}" for name in ("none", "worst")
        ), f"{float(rows['none']['mmacs']):.1f}"

    clean, worst, mmacs = figures("rdi_smallcnn", "max_average_fast")
    wanted = f"RDI-SmallCNN is {clean} % clean and {worst} % in the worst case at {mmacs} mmacs, "
    clean, worst, mmacs = figures("smallcnn", "pgd_fast")
    text = " ".join(FOUND.split())
    assert wanted + f"SmallCNN {clean} and {worst} % at {mmacs}." in text
    under_adaptive = float(BOARDS["rdi_smallcnn", "max_average_fast", "mnist"]["adaptive"]["mmacs"])
    assert f"`adaptive` makes it {under_adaptive:.1f}." in text
    clean, worst, _ = figures("branchynet_lenet", "max_average_fast")
    rows = BOARDS["branchynet_lenet", "max_average_fast", "mnist"]
    before, after = (float(rows[name]["mmacs"]) for name in ("none", "adaptive"))
    assert f"is {clean} % clean and {worst} % in the worst case at {before:.2f} mmacs under `vote`, " in text
    assert f"and `adaptive` makes it {after:.2f}." in text


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """Returns a results folder with all that is kept of a board's evaluations, merged by the test that asks first."""
    found = {}

    def of(folder, bench):
        if folder not in found:
            found[folder] = tmp_path_factory.mktemp(folder.name)
            assert bench("merge", *sorted((folder / "figures").glob("*.tar.xz")), "--results", found[folder])[0] == 0
        return found[folder]

    return of


@pytest.mark.no_cover  # minutes of reading cells, every line of which the tests of merge and sweep count as well
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_figure_is_derived_from_what_is_kept_of_the_evaluations(folder, bench, merged):
    """The same leaderboards and sweeps from files that hold every logit of every attack."""
    networks = [network for network in BOARDS if network[2] == folder.name]
    names = {path.name for path in (folder / "figures").glob("*.tar.xz")}
    assert names == {f"{'-'.join((model, data, how))}.tar.xz" for model, how, data in networks}
    results = merged(folder, bench)
    assert bench("sweep", "--results", results)[0] == 0
    for kind in ("leaderboards", "sweeps"):
        kept, made = ({path.name: path for path in (where / kind).glob("*.csv")} for where in (folder, results))
        assert kept.keys() == made.keys() != set()
        for name, path in kept.items():
            same_table(made[name].read_text("utf-8"), path.read_text("utf-8"), exactly=MADE_ON[folder.name] == PROCESSOR)


MADE_ON = {"cifar10": "AVX512", "mnist": "AVX512"}
PROCESSOR = torch.backends.cpu.get_cpu_capability()
COSTS = {"mmacs", "mmacs_dense", "mflops_paper", "slowdown_ratio", "savings_erased", "efficacy", "exits_taken", "policy"}
"""Columns in which another kind of processor may differ; accuracies are not among them."""


def same_table(made, kept, *, exactly):
    """Byte for byte on the kind of processor that the boards were made on. On another, entropies differ in their last bits: one
    sample at the edge of a gate takes another exit, and thresholds that are set anew are no longer those that were attacked."""
    if exactly:
        assert made == kept
    for ours, theirs in zip(csv.DictReader(made.splitlines()), csv.DictReader(kept.splitlines()), strict=True):
        differing = {name: (ours[name], theirs[name]) for name in theirs if ours[name] != theirs[name]}
        if {*differing.get("status", ())} == {"ok", NOT_ATTACKED} and "policy" in differing:
            del differing["status"]
        assert ours.keys() == theirs.keys() and differing.keys() <= COSTS, differing
        for a, b in differing.values():
            assert NUMBER.sub("", a) == NUMBER.sub("", b)
            for x, y in zip(NUMBER.findall(a), NUMBER.findall(b), strict=True):
                assert abs(float(x) - float(y)) <= (1 if y.isdigit() else 0.002 * (1 + abs(float(y)))), differing


def test_tables_of_other_numbers_are_not_the_same():
    kept = "accuracy,status,policy,exits_taken,mmacs\n0.5,ok,entropy:0.0012985,212 349 439,0.674221"
    same_table(kept.replace("349 439", "348 440").replace("4221", "4004"), kept, exactly=False)
    same_table(kept.replace("ok", NOT_ATTACKED).replace("2985", "2984"), kept, exactly=False)
    for old, new in (("0.5,", "0.501,"), ("349 439", "347 441"), ("4221", "9000"), ("ok", NOT_ATTACKED), ("ok", "failed")):
        with pytest.raises(AssertionError):
            same_table(kept.replace(old, new), kept, exactly=False)
    with pytest.raises(AssertionError):
        same_table(kept.replace("4221", "4004"), kept, exactly=True)


@pytest.mark.no_cover
def test_the_findings_are_the_paired_differences(bench, merged):
    """Sample by sample, on the networks that the table names."""
    _, stated = tables(FOUND)
    pairs = [[name.split("`")[1] for name in row[:2]] for row in stated]
    names = {name for pair in pairs for name in pair}
    folders = {data: PUBLISHED / data for model, how, data in BOARDS if f"{model}:{how}" in names}.values()
    found = [each for folder in folders for each in evaluations(Store(merged(folder, bench) / "store"))]
    networks = {f"{each.record.model}:{each.record.training}": each for each in found}
    assert len(networks) == len(found) and names <= set(networks)
    for (a, b), (_, _, *figures) in zip(pairs, stated, strict=True):
        assert not list(unpaired(networks[a].record, networks[b].record))
        compared = compare(networks[a], networks[b])
        said = []
        for title in ("clean", "worst case"):
            (pair,) = [each for each in compared.pairs if each.title == title]
            low, high = (100 * end for end in pair.interval)
            said.append(f"{100 * pair.difference:+.1f} ({low:+.1f} .. {high:+.1f})")
        (clean,) = [each for each in compared.pairs if each.title == "clean"]
        assert figures == [*said, f"{clean.mmacs[1] - clean.mmacs[0]:+.1f}"]
