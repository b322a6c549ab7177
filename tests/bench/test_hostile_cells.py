"""Cells of a stranger: what does not fit together, or not to the record that lists it, is named and left out."""

from __future__ import annotations

import re

import pytest

from exitbench.scoring.load import evaluations
from exitbench.store.merge import merge
from exitbench.store.store import Store, cell_path
from tests.bench.forged import CELLS, changed_cell, theirs, whole

__all__ = ["theirs", "whole"]


@pytest.mark.parametrize("case", CELLS)
def test_a_cell_that_is_none_is_refused_with_the_reason(theirs, tmp_path, case):
    arrays, reason = CELLS[case]
    path = changed_cell(theirs, 1, **arrays)
    target = Store(tmp_path / "target").root
    done = merge(target, [theirs])
    (said,) = done.damaged
    assert path.stem[:12] in said
    assert re.search(reason, said), said
    assert not cell_path(target, path.stem).exists()


@pytest.mark.parametrize("case", CELLS)
def test_reports_leave_out_what_does_not_fit_and_go_on(theirs, caplog, case):
    """What is no cell is set aside and its attack unfinished; what is a cell of something else takes its run with it."""
    arrays, reason = CELLS[case]
    path = changed_cell(theirs, 1, **arrays)
    found = evaluations(Store(theirs))
    if "its name is not" in reason:  # `verify` tells
        return
    (line,) = caplog.messages
    assert path.stem in line and re.search(reason.replace("33-64, not 32-63", "33-64"), line)
    assert found == [] or found[0].unfinished


def test_a_cell_that_finds_no_memory_is_not_damaged(theirs, monkeypatch):
    key = next(Store(theirs).runs()).attacks[1].keys[0]

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("exitbench.store.cell.read_arrays", full)
    with pytest.raises(MemoryError):
        Store(theirs).read(key)
    assert cell_path(theirs, key).is_file() and not (theirs / "quarantine").exists()


def test_an_attack_whose_logits_unpack_to_far_more_than_its_files_is_left_out(theirs, caplog, monkeypatch):
    monkeypatch.setattr("exitbench.scoring.cells.MOST_LOGITS", 100)
    assert evaluations(Store(theirs)) != [], "not even eight times of what the files have"
    monkeypatch.setattr("exitbench.scoring.cells.TIMES", 0)
    assert evaluations(Store(theirs)) == []
    assert "its logits unpack from" in caplog.text
