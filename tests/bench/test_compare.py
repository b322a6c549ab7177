"""Two toy evaluations side by side: counts as verdicts say, the worst case over what both faced, and what is not paired."""

import json
from dataclasses import replace

import pytest

from exitbench.analysis.compare.pairs import compare
from exitbench.attacks.deployment import Deployment
from exitbench.attacks.presets import expand
from exitbench.errors import UserError
from exitbench.models.policies import EntropyPolicy, FixedExit
from exitbench.models.spec import describe
from exitbench.report.charts.lite import Series
from exitbench.report.charts.looks import marker
from exitbench.report.compare.plot import difference_rows, draw_comparison, share_rows
from exitbench.report.compare.terminal import name_of
from exitbench.report.palette import COLOURS
from exitbench.stats.paired import mcnemar, newcombe
from tests.bench.evaluated import SETTINGS, evaluate, only_evaluation, prepared
from tests.bench.records import changed


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The toy under two policies; the second faced `max` as well, the first `single:1`."""
    found = []
    for policy, names in ((FixedExit(3), ["average", "single:1"]), (EntropyPolicy((1.5, 1.5)), ["average", "max"])):
        folder = tmp_path_factory.mktemp("store")
        _, store = evaluate(folder, names, prepared(policy, n=40))
        found.append(only_evaluation(store))
    return tuple(found)


def test_every_figure_is_that_of_the_verdicts(both):
    a, b = both
    found = compare(a, b)
    assert [pair.name for pair in found.pairs] == ["none", "average", "worst"]
    assert found.apart == ("single:1", "max")
    for pair, before, after in zip(
        found.pairs[:2], (a.clean.correct, a.robust(a.attacks[0])), (b.clean.correct, b.robust(b.attacks[0])), strict=True
    ):
        assert (pair.a, pair.b) == (before.sum(), after.sum())
        assert (pair.only_a, pair.only_b) == ((before & ~after).sum(), (~before & after).sum())
        assert pair.difference == pytest.approx(after.mean() - before.mean())
        assert pair.interval == newcombe(before, after) and pair.p == mcnemar(pair.only_a, pair.only_b)
        assert pair.mmacs_interval[0] <= pair.mmacs[1] - pair.mmacs[0] <= pair.mmacs_interval[1]
    assert found.pairs[0].mmacs == pytest.approx((a.mean_cost(a.clean), b.mean_cost(b.clean)))


def test_the_worst_case_is_over_what_both_faced(both):
    a, b = both
    worst = compare(a, b).pairs[-1]
    assert worst.mmacs is None
    assert (worst.a, worst.b) == (a.robust(a.attacks[0]).sum(), b.robust(b.attacks[0]).sum())


def test_turned_round_the_signs_turn(both):
    for one, other in zip(compare(*both).pairs, compare(*both[::-1]).pairs, strict=True):
        assert one.difference == -other.difference and one.p == other.p
        assert one.interval == pytest.approx([-end for end in reversed(other.interval)])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n": 32, "data": "x"}, "n 40 and 32"),
        ({"dataset": "mnist", "data": "x"}, "dataset digits and mnist"),
        ({"norm": "L2"}, "norm Linf and L2"),
        ({"eps": 8 / 255}, "eps 0.15 and 8/255"),
        ({"data": "x" * 64}, "other images or labels"),
    ],
)
def test_other_samples_and_threat_models_are_not_paired(both, other, message):
    a, b = both
    with pytest.raises(UserError, match=f"not paired: {message}"):
        compare(a, replace(b, record=changed(b.record, **other)))


def test_attacks_run_otherwise_are_not_the_same_attack(both):
    a, b = both
    attack = b.attacks[0]
    longer = replace(b, attacks=(replace(attack, spec={**attack.spec, "steps": 99}),))
    with pytest.raises(UserError, match="no attack in common: average, single:1 against average"):
        compare(a, longer)


def under(evaluation, name, policy, n_exits):
    """The evaluation as if its only attack were the one of this name on a network of so many exits."""
    attacks, _ = expand([name], Deployment(n_exits, policy, (1.0, 2.0, 3.0)[:n_exits]), SETTINGS)
    ((name, attack),) = attacks.items()
    return under_spec(evaluation, name, describe(attack))


def under_spec(evaluation, name, spec):
    return replace(evaluation, attacks=(replace(evaluation.attacks[0], name=name, spec=spec),))


@pytest.mark.parametrize("name", ["adaptive", "worst"])
def test_attacks_of_another_form_at_one_exit_are_paired_with_that_at_several(both, name):
    """Left out, networks with exits would be compared without what breaks them, or not at all."""
    a, b = under(both[0], name, FixedExit(1), 1), under(both[1], name, EntropyPolicy((1.5, 1.5)), 3)
    (at_one,), (at_several,) = a.attacks, b.attacks
    assert at_one.spec != at_several.spec
    compared = compare(a, b)
    assert [pair.name for pair in compared.pairs] == ["none", at_several.name, "worst"] and not compared.apart
    for change in ({"version": 1}, {"budget": 99} if name == "adaptive" else {"attacks": at_several.spec["attacks"][:1]}):
        with pytest.raises(UserError, match="no attack in common"):
            compare(a, under_spec(b, at_several.name, {**at_several.spec, **change}))


def test_a_numbered_exit_is_paired_only_among_as_many_exits(both):
    a, _ = both
    assert "single:1" in [pair.name for pair in compare(a, a).pairs]
    fewer = replace(a, record=changed(a.record, mmacs=(*a.record.mmacs, 1.0), mflops_paper=(*a.record.mmacs, 1.0)))
    assert compare(a, fewer).apart == ("single:1",)


def test_the_figure_has_a_row_for_each_pair_and_is_the_same_every_time(both):
    found = compare(*both)
    svg = draw_comparison(found).to_bytes("svg")
    assert all(f">{title}</text>" in svg.decode() for title in ("clean", "average", "worst case", "A: toy (none), exit:3"))
    assert draw_comparison(found).to_bytes("svg") == svg
    rows = difference_rows(found)
    assert [row["difference"] for row in rows] == [100 * pair.difference for pair in found.pairs]
    assert [(row["low"], row["high"]) for row in rows] == [tuple(100 * end for end in pair.interval) for pair in found.pairs]
    shares = share_rows(found, [Series("a", "#111", "circle"), Series("b", "#222", "circle")])
    assert [row["share"] for row in shares[:2]] == [100 * found.pairs[0].a / 40, 100 * found.pairs[0].b / 40]


def test_networks_look_as_in_every_figure_of_their_store(both):
    a, b = both
    other = replace(b, record=changed(b.record, model="other"))
    looks = {a.record.network: 4, other.record.network: 2}
    spec = json.dumps(draw_comparison(compare(a, other), looks).spec)
    for look in looks.values():
        colour, shape = marker(look)
        assert json.dumps(shape) in spec and COLOURS[colour] in spec
    assert COLOURS[0] not in spec
    alone = json.dumps(draw_comparison(compare(a, b), looks).spec)
    assert json.dumps([COLOURS[4], "#ffffff"]) in alone, "one network under two rules: the second is hollow"


def test_names_tell_two_apart(both):
    a, b = both
    assert name_of(a, b) == "toy (none), exit:3" and name_of(b, a) == "toy (none), entropy:1.5,1.5"
    assert name_of(a, replace(b, record=changed(b.record, model="other"))) == "toy (none)"
    assert name_of(a, replace(a, record=changed(a.record, seed=4))) == "toy (none), seed 0"
    assert name_of(a, replace(a, record=changed(a.record, weights="f" * 64))) == "toy (none), weights 000000000000"
