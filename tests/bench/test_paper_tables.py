"""Tables for papers: what stands in them, what is bold and marked, and that nothing in them is markup by chance."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pandas.api.types import is_numeric_dtype

from exitbench.checks.flag import Flag
from exitbench.errors import UserError
from exitbench.models import citations
from exitbench.models.registry import model_names
from exitbench.report.paper.bibtex import entry, own_entry
from exitbench.report.paper.columns import COLUMNS, chosen_columns, default_columns
from exitbench.report.paper.latex import escaped, to_latex
from exitbench.report.paper.markdown import to_markdown
from exitbench.report.paper.table import paper_table, read_labels
from exitbench.report.paper.tidy import tidy_csv
from exitbench.report.write import boards
from exitbench.scoring.load import evaluations
from exitbench.store.store import Store
from exitbench.training.recipes import recipe_names
from tests.bench.evaluated import evaluate, prepared
from tests.bench.records import changed
from tests.toys import ROOT, linear_exits


def one_exit():
    """A network of one exit on the toy's images."""
    from exitbench.models.cost import measure_costs
    from exitbench.models.policies import FixedExit

    ready, net = prepared(), linear_exits(1, 5, (1, 4, 4))
    costs = measure_costs(net, (1, 4, 4))
    target = replace(ready.target, name="plain_net", model=net, policy=FixedExit(1), costs=costs, weights="1" * 64)
    return replace(ready, target=target)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A network with exits, one without, and the first on fewer images."""
    folder = tmp_path_factory.mktemp("paper")
    evaluate(folder / "store", ["single", "average"])
    evaluate(folder / "store", ["average"], one_exit())
    return folder


@pytest.fixture(scope="module")
def board(results):
    """The two, best first, as if their matrix were whole and their trust checks had found nothing."""
    (found,) = boards(evaluations(Store(results / "store"))).values()
    return found


def whole(evaluation, **fields):
    """An evaluation that is compared with others: none of its marks but those asked for."""
    return replace(evaluation, probes=(object(),), **fields)


def cells_of(latex):
    """The cells of the rows of a tabular, by its own separators; columns and braces must come out even."""
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    nested = [f"{what} {name}" for what, name in re.findall(r"\\(begin|end){(\w+)}", latex)]
    assert nested == ["begin table", "begin tabular", "end tabular", "end table"]
    body = latex.partition(r"\toprule")[2].partition(r"\bottomrule")[0].replace(r"\midrule", "")
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in body.split(r"\\") if line.strip()]
    (aligned,) = re.findall(r"\\begin{tabular}{(\w+)}", latex)
    assert {len(row) for row in rows} == {len(aligned)}
    return rows


def test_a_cell_has_the_figure_and_its_interval(board):
    table = paper_table("board", board, default_columns(board))
    heads, *rows = cells_of(to_latex(table))
    assert heads == ["Network", "Exits", "Cost (MMACs)", r"Clean (\%)", r"Worst case (\%)"]
    assert sorted(row[1] for row in rows) == ["1", "3"]
    for row, each in zip(rows, board, strict=True):
        share = 100 * each.clean.correct.mean()
        low, high = map(float, re.search(r"\[([\d.]+), ([\d.]+)\]", row[3]).groups())
        assert f"{share:.1f}" in row[3] and low < share < high


def test_the_best_of_each_column_is_bold_and_of_equal_figures_all_but_never_every_one(board, monkeypatch):
    from exitbench.scoring import evaluation as verdicts

    monkeypatch.setattr(verdicts.Evaluation, "complete", True)
    columns = chosen_columns(["network", "exits", "cost", "clean", "worst"], board)
    by_exits = {each.record.n_exits: i for i, each in enumerate(board)}
    best = [row.best for row in paper_table("board", board, columns).rows]
    cheapest = min(board, key=lambda each: each.mean_cost(each.clean)).record.n_exits
    assert [row[2] for row in best].index(True) == by_exits[cheapest]
    highest = max(range(2), key=lambda i: board[i].clean.correct.mean())
    assert best[highest][3] and not best[1 - highest][3]
    assert not any(row[0] or row[1] for row in best)
    assert not any(any(row.best) for row in paper_table("board", [board[0], board[0]], columns).rows)
    tied = [row.best[3] for row in paper_table("board", [board[0], board[0], board[1]], columns).rows]
    assert tied == ([True, True, False] if highest == 0 else [False, False, True])


def test_what_cannot_be_believed_or_compared_is_marked_and_never_the_best(board, monkeypatch):
    from exitbench.scoring import evaluation as verdicts

    best = max(board, key=lambda each: each.clean.correct.mean())
    other = min(board, key=lambda each: each.clean.correct.mean())
    failing = whole(best, flags=(Flag("zero gradients", "failure", {}, "none"),))
    columns = chosen_columns(["network", "clean", "worst"], board)
    table = paper_table("board", [failing, other], columns)
    assert [row.marks for row in table.rows] == ["†§", "‡§"] and not any(row.best[1] for row in table.rows)
    assert not any(row.best[2] for row in table.rows), "a part of the matrix is no worst case to compare"
    text = to_latex(table)
    assert r"$^{\dagger\S}$" in text and "cannot be believed" in text and "part of the attacks" in text
    assert "† trust checks failed" in to_markdown(table)

    monkeypatch.setattr(verdicts.Evaluation, "complete", True)
    mixed = paper_table("board", [whole(best, verified=False), whole(other)], columns)
    assert [row.marks for row in mixed.rows] == ["¶", ""]
    taken_over = paper_table("board", [whole(each, verified=False) for each in (best, other)], columns)
    assert [row.marks for row in taken_over.rows] == ["", ""] and taken_over.rows[0].best[1]
    assert r"{\footnotesize figures taken over without the images" in to_latex(taken_over)


def test_nothing_stands_where_nothing_was_measured(board):
    names = ["network", "rule", "certified", "certified_cost", "slowdown", "savings_lost", "latency", "sparsity", "single:3"]
    table = paper_table("board", board, chosen_columns(names, board))
    rows = {row[0].partition("$")[0]: row for row in cells_of(to_latex(table))[1:]}
    assert rows[r"plain\_net"][1:] == ["--"] * 8
    assert rows["toy"][1:8] == ["entropy", *["--"] * 6] and "[" in rows["toy"][8]
    assert "| plain\\_net ‡§ | - | - |" in to_markdown(table)


def test_an_attack_is_a_column_and_a_name_that_is_none_is_told(board):
    heads = cells_of(to_latex(paper_table("b", board, chosen_columns(["average", "strongest"], board))))[0]
    assert heads == [r"average (\%)", "Strongest attack"]
    with pytest.raises(UserError, match="did you mean 'average'"):
        chosen_columns(["averag"], board)
    for names in ([], ["clean", "clean"]):
        with pytest.raises(UserError, match="each column once"):
            chosen_columns(names, board)


def test_names_are_texts_and_no_markup(board):
    named = changed(board[0].record, model="toy", training="50%_of_A&B")
    labels = read_labels([r"toy=A_b & 50% #1 \input{x} ~^|<$>"], [replace(board[0], record=named)])
    table = paper_table("b", [replace(board[0], record=named)], chosen_columns(["network", "training"], board), labels)
    (row,) = cells_of(to_latex(table))[1:]
    assert row[0].startswith(r"A\_b \& 50\% \#1 \textbackslash{}input\{x\} \textasciitilde{}\textasciicircum{}\textbar{}")
    assert row[1] == r"50\%\_of\_A\&B"
    assert r"A\_b & 50% \#1 \\input\{x\} \~^\|\<$\>" in to_markdown(table)
    assert escaped("a\nb") == r"a\textbackslash{}nb"
    as_written = paper_table("b", board, chosen_columns(["network", "cost"], board), {"toy": r"RDI$_3$"}, markup=True)
    text = to_latex(as_written, r"Of \cite{x}", "tab:mine", markup=True)
    assert r"RDI$_3$" in text and r"plain\_net" in text and r"\caption{Of \cite{x}}" in text and r"\label{tab:mine}" in text
    assert r"\caption{50\% \{\}}" in to_latex(as_written, "50% {}") and "caption" not in to_latex(as_written, "")


def test_labels_are_of_a_network_or_of_one_of_its_weights(board):
    found = read_labels(["toy=all", "toy:none=these = ours"], board)
    assert found == {"toy": "all", "toy:none": "these = ours"}
    titled = replace(board[0], record=changed(board[0].record, model="rdi_resnet38"))
    assert COLUMNS["network"].value(titled).text == "RDI-ResNet-38", "the name for readers, where there is one"
    names = [row.values[0].text for row in paper_table("b", board, [COLUMNS["network"]], found).rows]
    assert sorted(names) == ["plain_net", "these = ours"]
    for wrong in ("other=x", "toy", "toy="):
        with pytest.raises(UserError, match="MODEL=NAME"):
            read_labels([wrong], board)


def test_the_tidy_csv_has_one_number_in_a_cell_and_every_digit(board):
    table = pd.read_csv(io.StringIO(tidy_csv(board)))
    texts = {"model", "training", "weights", "source", "policy", "calibration", "dataset", "data", "norm", "attack", "method"}
    texts |= {"latency_on", "status", "flags", "note"}
    assert [name for name in table.columns if name not in texts and not is_numeric_dtype(table[name])] == []
    toy = next(each for each in board if each.record.n_exits == 3)
    row = table[(table["model"] == "toy") & (table["attack"] == "average")].iloc[0]
    attack = next(each for each in toy.attacks if each.name == "average")
    assert [row[f"exit_taken_{k}"] for k in (1, 2, 3)] == toy.exit_counts(attack)
    assert [row[f"exit_accuracy_{k}"] for k in (1, 2, 3)] == pytest.approx(attack.exit_accuracy, abs=1e-9)
    assert [row[f"exit_mmacs_{k}"] for k in (1, 2, 3)] == pytest.approx(toy.record.mmacs)
    assert row["accuracy"] == pytest.approx(toy.robust(attack).mean(), abs=1e-9) and row["eps"] == toy.record.eps
    plain = table[table["model"] == "plain_net"]
    assert plain["exit_taken_1"].dropna().tolist() == [70, 70] and plain["exit_taken_2"].isna().all()


def test_a_radius_is_a_number_beside_its_text(board):
    at = [replace(each, record=changed(each.record, eps=8 / 255)) for each in board]
    found = next(csv.DictReader(io.StringIO(tidy_csv(at))))
    assert float(found["eps"]) == pytest.approx(8 / 255, abs=1e-9) and found["eps_text"] == "8/255"


def test_the_command_writes_each_format_and_refuses_what_does_not_go_together(results, bench):
    forms = {"latex": r"\toprule", "markdown": "| Network |", "bibtex": "@misc{exitbench,", "csv": "exit_taken_1"}
    for form, inside in forms.items():
        code, out, err = bench("export", "--format", form, "--results", results, "--output", f"t.{form}")
        assert code == 0 and f"wrote t.{form}" in out, err
        assert inside in Path(f"t.{form}").read_text(encoding="utf-8")
    asked = ["export", "--results", results, "--output", "x", "--format"]
    for more, why in (
        (["csv", "--columns", "cost"], "--columns goes with --format latex or markdown"),
        (["markdown", "--latex-label", "t"], "--latex-label goes with --format latex"),
        (["figures", "--model", "toy", "--model", "plain_net"], "--model is given once"),
        (["latex", "--board", "mnist"], "there are: digits-Linf-0.15"),
        (["latex", "--model", "other"], "holds no finished evaluation"),
    ):
        code, _, err = bench(*asked, *more)
        assert code == 2 and why in err, err
    code, _, err = bench(
        *asked, "latex", "--model", "toy", "--label", "toy=Toy", "--columns", "network,average,worst", "--caption", "C"
    )
    text = Path("x").read_text(encoding="utf-8")
    assert code == 0 and "Toy$" in text and "plain" not in text and r"\caption{C}" in text


def test_several_boards_are_several_tables(results, tmp_path, bench):
    from exitbench.attacks.regions import ThreatModel
    from exitbench.attacks.settings import AttackSettings

    evaluate(tmp_path / "store", ["average"])
    wider = replace(prepared(), settings=AttackSettings(ThreatModel("Linf", 0.2), steps=2, step_size=0.1))
    evaluate(tmp_path / "store", ["average"], wider)
    code, out, _ = bench("export", "--format", "latex", "--results", tmp_path, "--output", "t.tex")
    text = (tmp_path / "t.tex").read_text()
    assert code == 0 and "digits-Linf-0.15, digits-Linf-0.2" in out and text.count(r"\begin{table}") == 2
    code, _, err = bench("export", "--format", "latex", "--results", tmp_path, "--output", "u.tex", "--caption", "x")
    assert code == 2 and "choose one with --board" in err
    code, _, _ = bench("export", "--format", "latex", "--results", tmp_path, "--output", "u.tex", "--board", "digits-Linf-0.2")
    assert code == 0 and (tmp_path / "u.tex").read_text().count(r"\begin{table}") == 1


def test_our_entry_is_that_of_the_citation_file():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    text = own_entry()
    assert f"{{{{{cited['title']}}}}}" in text and cited["version"] in text
    assert [f"{{{{{author['name']}}}}}" in text for author in cited["authors"]] == [True]
    for reference in cited["references"]:
        (paper,) = [each for each in citations.citations().values() if each.title == reference["title"]]
        assert paper.authors == tuple(f"{each['given-names']} {each['family-names']}" for each in reference["authors"])
        assert (paper.year, paper.url, paper.venue) == (reference["year"], reference["url"], reference["collection-title"])


def test_every_entry_is_whole_and_in_ascii():
    for key, paper in citations.citations().items():
        text = entry(key, paper)
        assert text.isascii() and text.count("{") == text.count("}"), text
        assert paper.title and paper.authors and paper.year > 1990 and (paper.venue or paper.url), key
        assert str(paper.year) in key
        assert all(url.startswith("https://") for url in [paper.url] if url)
    assert r"Wo{\l}czyk, Maciej and W{\'{o}}jcik" in entry("w", citations.citations()["wolczyk2021zero"])
    assert "{de Jorge}, Pau and Bibi" in entry("d", citations.citations()["dejorge2022make"])


def test_what_is_cited_is_known_and_every_network_and_defence_of_ours_is_cited():
    from exitbench.api.citations import cited
    from tests.bench.records import record_of

    tables = citations._content()
    named = {key for name, table in tables.items() if name != "papers" for keys in table.values() for key in keys}
    assert named <= set(citations.citations())
    assert not [name for name in model_names() if not citations.of_network(name)]
    assert citations.of_rule("vote:0.9,0.8:temperature=1.5,1.2,1.1") == ("guo2017calibration",)
    assert citations.of_attack("max_average", "of single:1") == ("hu2020triple",)
    assert citations.of_attack("slowdown:free") == ("hong2021panda",)
    assert citations.of_network("robustbench.Wong2020Fast") == ("croce2021robustbench",) and citations.of_network("my.make") == ()

    class Trained:
        attacks, certificate = (), None

        def __init__(self, **fields):
            self.record = record_of(**fields)

    for name in recipe_names():
        model, dataset, training = name.split("-")
        source = f"python -m bench train {name} --seed 0"
        keys, missing = cited([Trained(model=model, dataset=dataset, training=training, source=source)])
        undefended = training.startswith(("standard", "sdn", "gates"))
        assert missing == [] and (undefended or len(keys) > len(citations.of_network(model)) + 1), name
    keys, missing = cited([Trained(model="mine.make", dataset="birds")])
    assert missing == ["the network mine.make", "the dataset birds"]


def test_the_page_names_every_column_and_every_option():
    from exitbench.cli import export, figures

    page = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    listed = page.partition("The columns are ")[2].partition(", and the name")[0]
    assert re.findall(r"`(\w+)`", listed) == list(COLUMNS)
    known = {option for each in (export, figures) for parameter in each.command.params for option in parameter.opts}
    named = set(re.findall(r"--[a-z][a-z-]*", page)) - {"--attack"}
    assert named <= known
    assert {"--board", "--columns", "--label", "--caption", "--latex-label", "--markup"} <= named
