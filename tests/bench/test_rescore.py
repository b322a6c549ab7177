"""The plain model judges: what the search model alone believes broken is attacked again, and nobody else is."""

import pytest
import torch

from exitbench.attacks.noise import Noise
from exitbench.attacks.objectives import CE, Mean, Objective
from exitbench.attacks.pgd import PGD
from exitbench.attacks.regions import ThreatModel
from exitbench.attacks.slowdown import Slowdown
from exitbench.models.policies import deployed_logits
from exitbench.runner.passes import Passes
from exitbench.runner.rescore import disagreement, rescore
from tests.bench.evaluated import NET, evaluate, only_evaluation, prepared, toy_policy, toy_split
from tests.toys import small_convolutional

BALL = ThreatModel("Linf", 0.15)
PGD_ = PGD(Objective(CE(), Mean()), BALL, 3, 0.06)


def biased(shift: float = 0.6):
    """A search model that sees some images otherwise."""
    search_model = small_convolutional(3)
    for head in search_model.heads:
        head[1].bias += shift * torch.tensor([1.0, -1, 1, -1, 1])
    return search_model


def ready(policy=None, n=70):
    found = prepared(policy or toy_policy(), n)
    found.target.__dict__["search_model"] = biased()
    return found


def samples(n=40):
    batch = toy_split().batch(0, n)
    return batch.x, batch.y, Noise(0, batch.indices)


def right(net, x, y, policy):
    return deployed_logits(net(x), policy)[0].argmax(-1) == y


def test_what_the_twin_alone_believes_broken_ends_as_without_a_twin():
    target, (x, y, noise) = ready().target, samples()
    x_adv = PGD_(target.search_model, x, y, noise=noise)
    on_twin, on_plain = right(target.search_model, x_adv, y, target.policy), right(NET, x_adv, y, target.policy)
    judged = rescore(target, PGD_, x, y, x_adv, noise, BALL)
    assert torch.equal(judged.differs, on_twin != on_plain)
    assert torch.equal(judged.rerun, ~on_twin & on_plain)
    assert 0 < judged.rerun.sum() < judged.differs.sum(), "the toy must have both kinds"
    plain = PGD_(NET, x, y, noise=noise)
    torch.testing.assert_close(judged.x_adv[judged.rerun], plain[judged.rerun], atol=1e-6, rtol=0)
    assert torch.equal(judged.x_adv[~judged.rerun], x_adv[~judged.rerun])
    torch.testing.assert_close(judged.logits, NET(judged.x_adv), atol=1e-5, rtol=1e-5)
    assert judged.passes.backwards == 3 * int(judged.rerun.sum())
    assert judged.describe() == {"disagreements": int(judged.differs.sum()), "again": int(judged.rerun.sum())}


def test_a_batch_is_cut_into_parts_that_add_up():
    target, (x, y, noise) = ready().target, samples()
    judged = rescore(target, PGD_, x, y, PGD_(target.search_model, x, y, noise=noise), noise, BALL)
    parts = judged.parts([17, 3, 20])
    assert sum((part.passes for part in parts), Passes()) == judged.passes
    assert torch.equal(torch.cat([part.x_adv for part in parts]), judged.x_adv)
    assert torch.equal(torch.cat([part.logits for part in parts], 1), judged.logits)
    assert sum(part.describe()["again"] for part in parts) == judged.describe()["again"]


def test_the_plain_model_has_nobody_to_disagree_with():
    target, (x, y, noise) = prepared(toy_policy()).target, samples()
    target.__dict__["search_model"] = NET
    judged = rescore(target, PGD_, x, y, PGD_(NET, x, y, noise=noise), noise, BALL)
    assert judged.describe() == {"disagreements": 0, "again": 0} and judged.passes == Passes()


def test_an_attack_on_the_cost_is_after_the_exit_taken():
    policy, (x, y, _) = toy_policy(), samples()
    search_model, plain = biased()(x), NET(x)
    (a, exits), (b, judged) = deployed_logits(search_model, policy), deployed_logits(plain, policy)
    differs, claimed = disagreement(Slowdown(BALL, policy, (1.0, 2.0, 3.0)), search_model, plain, y, policy)
    assert torch.equal(differs, (exits != judged) | (a.argmax(-1) != b.argmax(-1))) and torch.equal(differs, claimed)


@pytest.mark.parametrize("names", [["average"], ["adaptive"], ["slowdown:keep_label"]])
def test_disagreements_are_told_at_the_end(tmp_path, names):
    from rich.console import Console

    from exitbench.report.leaderboard.terminal import summary

    outcomes, store = evaluate(tmp_path, names, ready())
    assert all(outcome.error is None for outcome in outcomes)
    evaluation = only_evaluation(store)
    (attack,) = evaluation.attacks
    assert attack.search.on == {"folded fp32"} and attack.search.disagreements >= attack.search.again > 0
    console = Console(record=True, width=200, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    console.print(summary(evaluation, names))
    assert f"disagreed on {attack.search.disagreements} of 70 images" in console.export_text()
