"""Baselines on file: what is written is read back, and nothing else is."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exitbench.analysis.regression.baseline import default_path, find_baseline, from_text, read_baseline, to_text
from exitbench.errors import UserError
from exitbench.models.spec import digest
from tests.bench.gate.synthetic import bits, made
from tests.bench.records import changed

ONE = made(bits("1101"), {"average": bits("1001"), "adaptive": bits("0001")}, {"average": [0, 1, 2, 2]})


def edited(change, *, signed=False):
    content = json.loads(to_text(ONE))
    change(content)
    if signed:
        content.pop("digest", None)
        content["digest"] = digest(content)
    return json.dumps(content)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 2)), min_size=1, max_size=40), st.floats(0, 1))
def test_what_is_written_is_read_back(samples, eps):
    clean, attacked, exits = (np.array(column) for column in zip(*samples, strict=True))
    one = made(clean, {"average": attacked}, {"average": exits}, eps=eps)
    back = from_text(to_text(one), "a file")
    assert (back.subject, back.settings, back.attacks) == (one.subject, one.settings, one.attacks)
    assert list(back.rows) == list(one.rows)
    for name, row in one.rows.items():
        assert (back.rows[name].right == row.right).all()
        assert (back.rows[name].exits is None) == (row.exits is None)
        assert row.exits is None or (back.rows[name].exits == row.exits).all()
    assert to_text(back) == to_text(one)


def test_verdicts_stand_in_it_as_people_count():
    verdicts = json.loads(to_text(ONE))["verdicts"]
    assert verdicts["average"] == {"right": "1001", "exits": "1 2 3 3"}
    assert verdicts["worst"] == {"right": "0001"}


BAD = {
    "no JSON": (to_text(ONE)[:-20], "it is not JSON"),
    "another file": ('{"format": "something"}', "is no baseline of exitbench"),
    "a list": ("[1, 2]", "is no baseline of exitbench"),
    "a later schema": (edited(lambda c: c.update(schema=99)), "of schema 99; this exitbench reads schemas up to"),
    "a flipped verdict": (edited(lambda c: c["verdicts"]["worst"].update(right="1111")), "edited or damaged"),
    "another eps": (edited(lambda c: c["subject"].update(eps=0.1)), "edited or damaged"),
    "no digest": (edited(lambda c: c.pop("digest")), "edited or damaged"),
    "too few verdicts": (edited(lambda c: c["verdicts"]["none"].update(right="110"), signed=True), "not 4 digits of 0 and 1"),
    "strange verdicts": (edited(lambda c: c["verdicts"]["none"].update(right="11x1"), signed=True), "not 4 digits of 0 and 1"),
    "an exit too far": (edited(lambda c: c["verdicts"]["none"].update(exits="1 2 3 4"), signed=True), "numbers of 1..3"),
    "no exits": (edited(lambda c: c["verdicts"]["none"].update(exits=""), signed=True), "numbers of 1..3"),
    "no subject": (edited(lambda c: c.pop("subject"), signed=True), "missing required field `subject`"),
    "no worst case": (edited(lambda c: c["verdicts"].pop("worst"), signed=True), "verdicts of none, average, adaptive for"),
    "verdicts that are none": (
        edited(lambda c: c.update(verdicts=3), signed=True),
        r"Expected `object`, got `int` - at `\$.verdicts`",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_not_whole_is_refused_by_name(case):
    text, message = BAD[case]
    with pytest.raises(UserError, match=message) as error:
        from_text(text, "baselines/b.json")
    assert "baselines/b.json" in str(error.value)


def test_files_that_cannot_be_read_are_said(tmp_path):
    with pytest.raises(UserError, match=r"b\.json cannot be read: No such file"):
        read_baseline(tmp_path / "b.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"b\.json cannot be read"):
        read_baseline(tmp_path / "b.json")


def test_the_file_is_named_after_the_place_on_the_leaderboard(tmp_path):
    assert default_path(tmp_path, ONE.subject).name == "toy-average-digits-Linf-0.2.json"
    foreign = changed(ONE.subject, model="../nets/mine.py:make", training="..", eps=8 / 255)
    path = default_path(tmp_path, foreign)
    assert path.parent == tmp_path and path.name == "_nets_mine.py_make-_-digits-Linf-8_255.json"


def test_the_baseline_is_found_by_what_is_asked_for(tmp_path):
    small, large = ONE, made(bits("11"), {"average": bits("11")}, eps=0.3)
    other = made(bits("11"), {}, model="toy2")
    for one in (small, large, other):
        default_path(tmp_path, one.subject).write_text(to_text(one))
    (tmp_path / "unrelated.json").write_text("not JSON at all")
    assert find_baseline(tmp_path, {"model": "toy", "eps": 0.3})[1].subject == large.subject
    assert find_baseline(tmp_path, {"model": "toy2"})[1].subject == other.subject
    assert find_baseline(tmp_path, {"model": "toy", "training": "standard"}) is None
    assert find_baseline(tmp_path / "nowhere", {"model": "toy"}) is None
    with pytest.raises(
        UserError, match=r"several baselines are of toy, digits: .*0\.2\.json, .*0\.3\.json; name one with --baseline"
    ):
        find_baseline(tmp_path, {"model": "toy", "dataset": "digits"})
