"""Compares finished attacks with each other: a black-box attack must not beat the gradient attacks."""

from __future__ import annotations

from exitbench.checks.controls import POINTS_DIFFERENCE
from exitbench.checks.flag import Flag
from exitbench.checks.leads import LEVEL, Pairs
from exitbench.scoring.evaluation import Evaluation


def flags(evaluation: Evaluation) -> list[Flag]:
    """Return the flag ``black-box beats white-box`` from the cells of all attacks on accuracy.

    It is a failure, or a warning if the gradient attacks are only a part of the matrix, without that on the deployed rule. An
    attack is black-box if it took forward passes through the model and no backward pass, whatever its name.
    """
    left = {attack.name: int((evaluation.clean.correct & attack.survived).sum()) for attack in evaluation.attacks}
    black = [attack.name for attack in evaluation.attacks if attack.backwards == 0 and attack.forwards > 0]
    white = [attack.name for attack in evaluation.attacks if attack.backwards > 0 and not attack.is_slowdown]
    if not black or not white:
        return []
    best_black, best_white = min(black, key=left.__getitem__), min(white, key=left.__getitem__)
    lead = 100 * (left[best_white] - left[best_black]) / evaluation.n
    if lead <= POINTS_DIFFERENCE:
        return []
    message = (
        f"{best_black} takes no gradient and leaves {100 * left[best_black] / evaluation.n:.1f} %; {best_white}, the strongest "
        f"attack with gradients, leaves {100 * left[best_white] / evaluation.n:.1f} %: "
        "give more --steps with --attack single; if that changes nothing, gradients are masked and the number is not valid"
    )
    strong = evaluation.complete or "adaptive" in white
    p = _pairs(evaluation, best_black, best_white).more()
    if p >= LEVEL / len(black):  # the best of them was chosen
        message += f"; {evaluation.n} samples are too few to tell (p = {p:.2g}): evaluate more (--n)"
        strong = False
    return [Flag("black-box beats white-box", "failure" if strong else "warning", {"points": lead, "p": p}, message)]


def _pairs(evaluation: Evaluation, black: str, white: str) -> Pairs:
    broken = {attack.name: evaluation.clean.correct & ~attack.survived for attack in evaluation.attacks}
    one, other = broken[black], broken[white]
    return Pairs(int((one & other).sum()), int((one & ~other).sum()), int((other & ~one).sum()))
