"""What the page shows, before any browser: shares, overlaps, charts, curves, and the file itself."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from exitbench.report.charts.looks import looks_of
from exitbench.report.charts.rows import curve_rows
from exitbench.report.charts.runtime import runtime
from exitbench.report.csv_file import to_csv
from exitbench.report.page import assets, overlap
from exitbench.report.page.board import columns, key_of, rows
from exitbench.report.page.curves import network_of, read_curves
from exitbench.report.page.detail import detail
from exitbench.report.page.html import SCRIPTS, to_html
from exitbench.report.write import boards, write_page
from tests.bench.pages import HOSTILE, N, evaluation, few
from tests.bench.records import changed
from tests.toys import ROOT

MEBIBYTE = 2**20


def with_breaks(*broken, clean=None):
    """An evaluation of which attack i breaks exactly the samples given."""
    one = evaluation(0)
    ones = np.ones(N, dtype=np.bool_)
    attacks = []
    for i, samples in enumerate(broken):
        correct = ones.copy()
        correct[list(samples)] = False
        attacks.append(replace(one.attacks[0], name=f"a{i}", correct=correct))
    right = ones.copy()
    right[list(clean or ())] = False
    return replace(one, clean=replace(one.clean, correct=right), attacks=tuple(attacks))


SAMPLES = st.sets(st.integers(0, N - 1), max_size=12)


@given(st.lists(SAMPLES, min_size=1, max_size=12), SAMPLES)
def test_shares_count_every_sample_once(broken, wrong):
    found = with_breaks(*broken, clean=wrong)
    shares = overlap.shares(found)
    assert sum(each.count for each in shares) == N and sum(each.share for each in shares) == pytest.approx(1)
    assert (shares[0].count, shares[-1].count) == (len(wrong), int(found.worst.sum()))
    parts = [each for each in shares if each.kind == "attack"]
    assert [each.count for each in parts] == sorted((each.count for each in parts), reverse=True)
    assert len(parts) <= overlap.SEGMENTS and [each.place for each in parts] == list(range(1, len(parts) + 1))


@given(st.lists(SAMPLES, min_size=2, max_size=12))
def test_combinations_are_exclusive_and_complete(broken):
    found = overlap.overlap(with_breaks(*broken))
    union = set().union(*broken)
    if sum(bool(samples) for samples in broken) < 2:
        assert found is None
        return
    assert sum(each.count for each in found.combinations) + found.hidden == len(union)
    assert len({each.members for each in found.combinations}) == len(found.combinations) <= overlap.COMBINATIONS
    assert [each.count for each in found.combinations] == sorted((each.count for each in found.combinations), reverse=True)
    if len(broken) <= overlap.SETS:
        assert sorted(size for _, size in found.sets) == sorted(len(samples) for samples in broken if samples)


def test_attacks_of_one_name_are_told_apart():
    one = with_breaks({1}, {2})
    same = replace(one, attacks=tuple(replace(attack, name="average", seed=i) for i, attack in enumerate(one.attacks)))
    assert list(overlap.labels(same).values()) == ["average (seed 0)", "average (seed 1)"]
    twice = replace(one, attacks=tuple(replace(attack, name="average", seed=0) for attack in one.attacks))
    assert len(set(overlap.labels(twice).values())) == 2


def test_alone_are_samples_that_no_other_attack_breaks():
    shown = detail(with_breaks({1, 2, 3}, {3}, clean={1}))
    assert [(each.broken, each.only) for each in shown.attacks] == [(2, 1), (1, 0)]


def test_exits_add_up():
    shown = detail(evaluation(3))
    assert sum(each.taken for each in shown.exits) == N == sum(each.attacked_taken for each in shown.exits)
    for situation in shown.situations:
        assert sum(situation.counts) == N and sum(situation.shares) == pytest.approx(1)
    assert [each.threshold for each in shown.exits] == ["entropy < 0.3", "entropy < 0.4", "the rest"]
    right = sum(each.taken * each.here for each in shown.exits if each.here is not None)
    assert right == pytest.approx(evaluation(3).clean.correct.sum())


SWEEP = (
    "model,training,weights,dataset,data,norm,eps,n,rule,point,target_mmacs,policy,calibration,mmacs,mflops_paper,"
    "clean,clean_low,clean_high,worst,worst_low,worst_high,ra_any,exits_taken,status,flags\n"
)


def sweep_rows(record, rule="entropy", shift=0.0):
    same = [record.model, record.training, record.weights[:12], record.dataset, record.data[:12]]
    same += ["Linf", "8/255", record.n, rule]
    lines = []
    for point, cost, share in (("first exit", 10, 0.5), ("target", 30, 0.6), ("last exit", 50, 0.7), ("deployed", 20, 0.1)):
        figures = f"{cost + shift},1,{share},{share - 0.1},{share + 0.1},{share / 2},0.01,0.9,0.05"
        lines.append(",".join(map(str, same)) + f',{point},,"entropy:0.1,0.2",,{figures},1 2 3,ok,none\n')
    return "".join(lines)


def test_sweeps_are_read_matched_and_drawn(tmp_path):
    one = evaluation(1)
    (tmp_path / "board.csv").write_text(SWEEP + sweep_rows(one.record), encoding="utf-8")
    (tmp_path / "board-net_001.csv").write_text(SWEEP + sweep_rows(one.record, shift=5), encoding="utf-8")
    curves = read_curves(tmp_path)
    (curve,) = curves[network_of(one.record)]
    assert [point.mmacs for point in curve.points] == [10, 30, 50], "of the whole store's file, deployed rules left out"
    board = [one, evaluation(2)]
    points, floors = curve_rows(board, curves, looks_of(board))
    assert [point["key"] for point in points] == [key_of(one)] * 3 and [floor["floor"] for floor in floors] == [0.05]
    page = to_html(boards([one]), curves)
    assert "Other thresholds" in page and "Other thresholds" not in to_html(boards([one]))


@pytest.mark.parametrize(
    "content", ["", "a,b\n1,2\n", SWEEP + "x" * 40 + "\n", b"\xff\xfe\x00", SWEEP + "m,t,w,d,d,Linf,1,9,entropy,target\n"]
)
def test_a_file_that_is_no_sweep_is_told_and_left_out(tmp_path, caplog, content):
    good = evaluation(1)
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "good.csv").write_text(SWEEP + sweep_rows(good.record), encoding="utf-8")
    with caplog.at_level(logging.ERROR):
        assert list(read_curves(tmp_path)) == [network_of(good.record)]
    assert ("a.csv" in caplog.text) == (content != "")


def test_a_share_out_of_its_interval_is_no_sweep(tmp_path, caplog):
    text = (SWEEP + sweep_rows(evaluation(1).record)).replace(",0.5,0.4,0.6,", ",7,0.4,0.6,")
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert not read_curves(tmp_path) and "a.csv" in caplog.text


def test_a_name_that_the_csv_disarmed_is_found_again(tmp_path):
    one = evaluation(1, "=1+1")
    table = pd.read_csv(io.StringIO(SWEEP + sweep_rows(one.record)), dtype={"weights": str, "eps": str})
    (tmp_path / "a.csv").write_text(to_csv(table), encoding="utf-8")
    assert "'=1+1" in (tmp_path / "a.csv").read_text()
    assert network_of(one.record) in read_curves(tmp_path)


def test_keys_are_unique_and_do_not_depend_on_rank_attacks_or_seed():
    keys = [row.key for row in rows(boards(few()))]
    assert len(set(keys)) == len(few()) and all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)
    one = evaluation(1)
    later = replace(one, record=changed(one.record, seed=5, attacks=[], note="x", trust="y"))
    assert key_of(later) == key_of(one) != key_of(replace(one, record=changed(one.record, policy="exit:2")))


def test_a_column_on_which_all_agree_is_hidden_not_gone():
    found = {column.key: column for column in columns(rows(boards([evaluation(1), evaluation(2)])))}
    assert not found["dataset"].shown and found["mmacs"].shown and "sparsity" not in found
    mixed = {column.key: column for column in columns(rows(boards(few())))}
    assert not mixed["n"].shown and not mixed["status"].shown, "a column on which each board agrees is hidden, too"
    assert mixed["worst"].shown and [column.key for column in columns(rows(boards(few())))][1:3] == ["model", "worst"]
    assert not {key for key in ("dataset", "threat") if mixed[key].shown}, "the tab says them"


def test_the_page_is_the_same_bytes_every_time_and_small(tmp_path):
    many = [evaluation(i) for i in range(12)]
    page = write_page(many, tmp_path)
    first = page.read_bytes()
    assert write_page(many, tmp_path).read_bytes() == first
    assert len(first) < 3 * MEBIBYTE
    none = to_html({})
    assert len(to_html(boards(few()[:1]))) < 2 * MEBIBYTE and "No network has been evaluated yet" in none


def outside_the_library(page):
    for script in (*assets.library(), runtime()):
        assert page.count(script) == 1
        page = page.replace(script, "")
    return page


def test_the_page_asks_for_nothing():
    page = to_html(boards(few()))
    shown = page.split("<script>")[0] + outside_the_library(page)
    assert not re.findall(r"""(?:src|href)=["'](?!data:,|#)""", re.sub(r'<a href="https://[^"]*" rel="noopener">', "", shown))
    assert "@import" not in outside_the_library(page) and "url(" not in outside_the_library(page)


def test_the_library_is_whole_and_comes_with_its_licences():
    page = to_html(boards(few()))
    assert "Permission is hereby granted, free of charge" in page
    for file in assets.LIBRARY:
        content = (ROOT / "bench" / "report" / "templates" / file.name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256, f"{file.name} is not that of {file.package} {file.version}"
        assert file.version in content[:200].decode() or file.name.startswith("buttons.")
        for said in (file.name, file.package, file.version):
            assert said in outside_the_library(page)
    for holder in ("University of Washington Interactive Data Lab", "Mike Bostock"):
        assert holder in outside_the_library(page)
    assert f"Vega {vl_convert.get_vega_version()}" in page
    for holder in ("SpryMedia", "OpenJS Foundation", "Eli Grey"):
        assert holder in outside_the_library(page) and any(holder in script for script in assets.library()), "notices are kept"


def test_whatever_comes_from_outside_is_escaped():
    page = outside_the_library(to_html(boards(few())))
    assert HOSTILE not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<img" not in page and page.count("</noscript>") == len(few()) + len(boards(few()))
    executed = 2 + len(assets.LIBRARY) + len(SCRIPTS)
    assert page.count("<script>") == executed, "the mark that scripts run, the library, Vega, the page's own"
    data = 2 + len(boards(few()))
    assert page.count("</script>") == data + executed, "and the verdicts, the charts' specification and their rows"
    assert page.count('<script type="application/json"') == data


@given(st.text(alphabet="<!-/scriptSCRIPT> a", max_size=40))
def test_no_code_can_end_its_script(code):
    safe = assets.in_script(code)
    assert not re.search(r"<(!--|/?script)", safe, re.IGNORECASE)
    assert safe.replace(r"\x3C", "<") == code
