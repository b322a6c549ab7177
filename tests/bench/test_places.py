"""Places on a board: ties are shown as ties, differences as differences, and rows of other samples are marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitbench.report.page.board import rows
from exitbench.report.write import boards
from exitbench.scoring.places import place_text, places, usual_n
from exitbench.scoring.ranking import rank
from tests.bench.pages import evaluation
from tests.bench.records import changed


def robust(i, right):
    """An evaluation whose deployed rule is right on exactly these samples, whatever attacks it."""
    made = evaluation(i)
    right = np.asarray(right, dtype=np.bool_)
    clean = replace(made.clean, correct=right)
    record = changed(made.record, n=len(right), data=f"{len(right):064x}")
    return replace(made, record=record, clean=clean, attacks=(), survived_unfinished=right, unfinished_any_exit_wrong=~right)


def share(i, right, n):
    return robust(i, np.arange(n) < right)


def test_equal_rows_share_all_places_and_clear_differences_do_not():
    board = [share(0, 90, 100), share(1, 90, 100), share(2, 20, 100)]
    assert places(board) == [(1, 2), (1, 2), (3, 3)]
    assert [place_text(place) for place in places(board)] == ["1-2", "1-2", "3"]


def test_the_same_samples_tell_apart_what_intervals_do_not():
    """61 against 50 of 100 overlap; as 11 samples lost and none won, p is 2 ** -10."""
    assert places([share(0, 61, 100), share(1, 50, 100)]) == [(1, 1), (2, 2)]


def test_other_samples_are_told_apart_by_intervals_alone():
    assert places([share(0, 61, 100), share(1, 100, 200)]) == [(1, 2), (1, 2)]
    assert places([share(0, 90, 100), share(1, 100, 200)]) == [(1, 1), (2, 2)]


def test_many_pairs_need_a_larger_difference():
    """6 lost and none won is p = 1/32: enough alone, and not among three pairs, where 7 (p = 1/64) still are."""
    pair = [share(0, 56, 100), share(1, 50, 100)]
    assert places(pair) == [(1, 1), (2, 2)]
    assert places([share(2, 57, 100), *pair]) == [(1, 2), (1, 3), (2, 3)]


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([40, 80])), min_size=1, max_size=8))
def test_a_row_stands_within_its_places_and_a_better_one_never_starts_later(wanted):
    board = sorted((share(i, right, n) for i, (right, n) in enumerate(wanted)), key=rank)
    found = places(board)
    for i, (first, last) in enumerate(found):
        assert 1 <= first <= i + 1 <= last <= len(board)
    for i in range(len(board)):
        for j in range(i):
            if board[i].n == board[j].n and np.array_equal(board[i].worst, board[j].worst):
                assert found[i] == found[j]


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_networks_of_one_true_robustness_are_seldom_told_apart(n, seed):
    """Coins of one bias: with Holm at 5 %, at most a few boards in a hundred tell any two apart; none with so few samples."""
    right = np.random.default_rng(seed).random((3, n)) < 0.5
    board = sorted((robust(i, each) for i, each in enumerate(right)), key=rank)
    told = sum(place != (1, 3) for place in places(board))
    differ = max(abs(int(a.sum()) - int(b.sum())) for a in right for b in right)
    assert not told or differ >= 6, "the exact test needs six discordant samples of one kind at least"


def test_rows_of_another_number_of_samples_are_marked_on_the_page():
    board = sorted([share(0, 90, 100), share(1, 60, 100), share(2, 160, 200)], key=rank)
    assert usual_n(board) == 100
    shown = {row.cells["n"].text: row.cells["rank"].text for row in rows(boards(board))}
    assert set(shown) == {"100", "200 ≠ 100"}
    assert usual_n([share(0, 1, 100), share(1, 1, 200)]) == 200


@pytest.mark.parametrize("number", [1, 3])
def test_a_board_of_rows_that_are_apart_has_plain_places(number):
    board = [share(i, 100 - 40 * i, 100) for i in range(number)]
    assert [row.cells["rank"].text for row in rows(boards(board))] == [str(i + 1) for i in range(number)]
