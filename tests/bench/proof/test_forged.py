"""Whatever is changed in a valid store is noticed by verify, or changes no number that evidence stands behind."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from exitbench.checks.again import _differences, trust_mismatches
from exitbench.checks.probe import ensure_probe
from exitbench.errors import UserError
from exitbench.models.errors import InputError
from exitbench.models.policy_text import parse_policy
from exitbench.models.spec import describe, digest
from exitbench.report.leaderboard.table import rows_of
from exitbench.scoring.load import evaluations
from exitbench.store.run_record import CLEAN
from exitbench.store.store import Store
from exitbench.store.trust_result import TRUST_RESULT
from exitbench.verify.check import verify
from exitbench.verify.gather import gather
from exitbench.verify.notes import notes
from exitbench.verify.results import find_results, trust_results
from exitbench.verify.scorer import Scorer
from tests.bench.evaluated import evaluate
from tests.bench.proof.forger import ARRAYS, Forger, leaves, with_leaf
from tests.bench.trained import ready

NAMES = ("single", "average", "max_average", "adaptive", "slowdown:free")
EFFORT = {"method", "seed", "source", "note", "forwards", "backwards", "latency_ms", "latency_on", "model", "training"}
"""Words, and what an attack took: nothing in a store can prove them, and docs/security.md says so."""
WITHOUT_IMAGES = {
    "mmacs",
    "mmacs_dense",
    "mflops_paper",
    "slowdown_ratio",
    "savings_erased",
    "efficacy",
    "exits_taken",
    "distance",
}
WITHOUT_IMAGES |= {"within"}
"""Of an attack, these are also of images that break no exit, which are not kept; docs/security.md says so."""
READY = ready(n=48)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    _, store = evaluate(folder / "store", NAMES, READY)
    assert ensure_probe(READY, 0, store) is None
    return folder


@pytest.fixture
def forger(honest, tmp_path):
    shutil.copytree(honest, tmp_path / "forged")
    return Forger(tmp_path / "forged" / "store")


def noticed(folder, *, trust=True):
    """What verify has against the results in a folder; it looks at trust results where ``trust`` says so."""
    try:
        found = find_results(str(folder), folder)
        told = []
        for records in found.records:
            claims = gather(found.store, records, READY.split, {})
            if claims is None:
                return ["no clean pass"]
            verified = verify(claims, Scorer(READY.target.model), READY.target.weights)
            told += map(str, verified.mismatches)
            robust = set(np.flatnonzero(verified.robust).tolist())
            for record, result in trust_results(claims) if trust else ():
                told += trust_mismatches(record, result, READY.target.model, READY.split, robust)
        return told
    except (UserError, InputError) as error:
        return [str(error)]


def numbers(folder):
    """Every reported number that evidence stands behind; None where the reports say that they are partial."""
    try:
        found = evaluations(Store(folder / "store"))
        rows = [row for evaluation in found for row in rows_of(evaluation)]
    except (UserError, InputError, ValueError):
        return []
    if any(evaluation.unfinished or not evaluation.checked for evaluation in found):
        return None
    return [
        {
            name: value
            for name, value in row.items()
            if name not in (EFFORT if row["attack"] in (CLEAN, "worst") else EFFORT | WITHOUT_IMAGES)
        }
        for row in rows
    ]


@pytest.fixture(scope="module")
def true_numbers(honest):
    return numbers(honest)


def test_an_honest_store_holds_and_reports(honest, true_numbers):
    assert noticed(honest) == [] and true_numbers is not None
    worst = [row for row in true_numbers if row["attack"] == "worst"]
    assert 0 < worst[0]["accuracy"] < 1


def robust_logits(cell):
    """Logits that are right at every exit, without the images that contradict them."""
    logits = np.full_like(cell.logits, -5.0)
    logits[:, np.arange(len(cell.labels)), cell.labels] = 5.0
    return replace(cell, logits=logits, broken_rows=cell.broken_rows[:0], counterexamples=cell.counterexamples[:0])


def attacked(name):
    return name != CLEAN


def costs_over(forger, factor):
    record = forger.record
    costs = {name: [value / factor for value in record[name]] for name in ("mmacs", "mflops_paper") if record.get(name)}
    forger.write_record({**record, **costs})


def trust_edited(forger, **changes):
    forger.write_trust({**json.loads(forger.trust.read_text()), **changes})


def saturated(forger):
    gradients = json.loads(forger.trust.read_text())["gradients"]
    trust_edited(forger, gradients={**gradients, "zero": [0.9, *gradients["zero"][1:]]})


def renamed(forger, before, after):
    attacks = [{**each, "name": after if each["name"] == before else each["name"]} for each in forger.record["attacks"]]
    forger.write_record({**forger.record, "attacks": attacks})


def robust_and_cheap(forger):
    forger.change_cells(attacked, robust_logits)
    costs_over(forger, 3)
    trust_edited(forger, controls=None)


def far_away(forger):
    forger.change_cells(attacked, lambda cell: replace(cell, distances=np.full_like(cell.distances, 1e30)))


def nan_at_the_label(forger):
    def planted(cell):
        logits = cell.logits.copy()
        logits[0, 0, cell.labels[0]] = np.nan
        return replace(cell, logits=logits)

    forger.change_cells(attacked, planted)


FORGED = {
    "robust logits, a third of the costs, the trust file edited": (robust_and_cheap, "recorded"),
    "costs over 100": (lambda forger: costs_over(forger, 100), "cost, mmacs: recorded"),
    "distances of 1e30": (far_away, "claimed at distance 1e+30 of its clean image"),
    "a NaN logit": (nan_at_the_label, "no finite numbers"),
    "average called autoattack": (
        lambda forger: renamed(forger, "average", "autoattack"),
        "its specification is that of average",
    ),
    "a digit of the trust file": (saturated, "zero is recorded as"),
    "another ball": (lambda forger: forger.write_record({**forger.record, "eps": 0.9}), "its specification attacks another ball"),
}


@pytest.mark.parametrize("case", FORGED)
def test_what_was_believed_is_noticed(forger, case):
    forge, message = FORGED[case]
    forge(forger)
    told = noticed(forger.store.parent)
    assert any(message in text for text in told), told


def test_images_that_are_said_to_be_far_away_still_count(forger, true_numbers):
    far_away(forger)
    assert numbers(forger.store.parent) == true_numbers


def test_a_name_counts_for_nothing(forger, true_numbers):
    renamed(forger, "average", "autoattack")
    assert numbers(forger.store.parent) == true_numbers


def test_evaluations_of_other_numbers_of_samples_in_one_store_hold(tmp_path):
    """Their trust checks may grow to other numbers of samples."""
    for n in (96, 40):
        given_n = ready(n=n)
        _, store = evaluate(tmp_path / "store", ("average",), given_n)
        assert ensure_probe(given_n, 0, store) is None
    assert len(list((tmp_path / "store" / "trust").iterdir())) == 2 and noticed(tmp_path) == []


def test_a_trust_result_of_an_earlier_release_has_a_key_without_the_number_of_samples(forger):
    record = next(Store(forger.store).runs())
    stored = Store(forger.store).read_probe(record.trust)
    what = {"version": stored.version, "weights": record.weights, "settings": stored.settings, "seed": record.seed}
    policy = parse_policy(record.policy, record.n_exits, record.calibration)
    what |= {"inputs": READY.split.batch(0, 32).input_hashes(), "policy": describe(policy)}
    assert record.trust == digest({**what, "n": record.n})
    earlier = digest(what)
    stored = structs.replace(stored, key=earlier)
    record = structs.replace(record, trust=earlier)
    assert trust_mismatches(record, stored, READY.target.model, READY.split, None) == []


def test_attacks_without_any_counterexample_are_told(forger):
    forger.change_cells(lambda name: name == "average", robust_logits)
    found = find_results(str(forger.store.parent), forger.store.parent)
    claims = gather(found.store, found.records[0], READY.split, {})
    assert any(text.startswith("without any counterexample, so that they prove nothing: average") for text in notes(claims))


def test_a_trust_file_that_was_changed_is_damaged_and_one_without_a_digest_is_read(forger):
    text = forger.trust.read_text()
    content = json.loads(text)
    forger.trust.write_text(text.replace('"seed": 0', '"seed": 1'))
    assert "not that of its digest" in noticed(forger.store.parent)[0]
    forger.trust.write_text(json.dumps({name: value for name, value in content.items() if name != "digest"}))
    assert noticed(forger.store.parent) == []
    assert TRUST_RESULT.read_text(forger.trust.read_bytes(), forger.trust).digest is None


@pytest.mark.parametrize("rises", [False, True])
def test_where_the_loss_no_longer_rises_any_late_value_may_be_the_best(honest, rises):
    """These values are equal but for rounding, which other batches and processors do otherwise."""
    record = next(Store(honest / "store").runs())
    result = Store(honest / "store").read_probe(record.trust)
    rising, some, others = (result.right if rises else ()), result.right[::2], result.right[1::2]
    paths = (structs.replace(result.path, rising=rising, late=late) for late in (some, others))
    one, again = (structs.replace(result, path=path) for path in paths)
    assert [name for name, *_ in _differences(one, again)] == (["late"] if rises else [])


def other(draw, value):
    """Another value of the same kind, or none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw(st.integers(-3, 3 * abs(value) + 3).filter(lambda found: found != value))
    if isinstance(value, float):
        factor = draw(st.sampled_from([0.0, 0.01, 0.3, 0.9, 1.1, 3.0, 100.0, -1.0]))
        return value * factor if value * factor != value else value + factor
    if isinstance(value, str):
        return draw(st.sampled_from(["average", "adaptive", "digits", "L2", "f" * 64, "entropy:0.1,0.2", "last", "max"]))
    return draw(st.sampled_from([0, 1.5, "average"]))


@settings(max_examples=60)
@given(st.data())
def test_any_field_of_a_record_or_a_trust_file_changed_is_noticed_or_harmless(honest, true_numbers, data):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(honest, Path(folder) / "forged")
        forger = Forger(Path(folder) / "forged" / "store")
        of_trust = data.draw(st.booleans())
        content = json.loads(forger.trust.read_text()) if of_trust else forger.record
        where, value = data.draw(st.sampled_from([each for each in leaves(content) if each[0] != ("schema",)]))
        changed = with_leaf(content, where, other(data.draw, value))
        try:
            (forger.write_trust if of_trust else forger.write_record)(changed)
        except ValueError:
            return  # refused by the reader
        result = numbers(forger.store.parent)
        assert result in (None, true_numbers) or noticed(forger.store.parent), (where, value)


@settings(max_examples=60)
@given(st.data())
def test_any_array_of_a_cell_changed_is_noticed_or_harmless(honest, true_numbers, data):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(honest, Path(folder) / "forged")
        forger = Forger(Path(folder) / "forged" / "store")
        cell = forger.cell(data.draw(st.sampled_from(forger.keys())))
        name = data.draw(st.sampled_from([name for name in ARRAYS if getattr(cell, name).size]))
        array = getattr(cell, name).copy()
        at = np.unravel_index(data.draw(st.integers(0, array.size - 1)), array.shape)
        if array.dtype.kind == "f":
            array[at] = data.draw(st.floats(-20, 20, width=32))
        else:
            array[at] = data.draw(st.integers(0, 60))
        forger.write_cell(replace(cell, **{name: array}))
        result = numbers(forger.store.parent)
        assert result in (None, true_numbers) or noticed(forger.store.parent, trust=False), (name, at)
