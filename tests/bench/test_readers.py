"""Readers of stores, archives, baselines and claims end in a value or in one error; ``fuzz_readers`` does more of the same."""

from __future__ import annotations

import pytest

from tests.bench import fuzz_readers


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return fuzz_readers.readers(tmp_path_factory.mktemp("readers"))


KINDS = (
    *("run record", "trust result", "error", "latency", "heartbeat", "network", "baseline"),
    *("cell", "calibration logits", "claims", "archive", "store"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_ends_in_a_value_or_in_the_one_error(readers, kind):
    assert set(readers) == set(KINDS)
    fuzz_readers.meet(readers[kind], 8 if kind in ("archive", "store") else 60)


@pytest.mark.parametrize("kind", KINDS)
def test_good_files_are_read(readers, kind):
    for good in readers[kind].good:
        assert readers[kind].read(good) is not None
