"""The exit rule that a request asks for: checked before any work, and set for the network."""

from __future__ import annotations

from pathlib import Path

from exitbench.data.cards import find_dataset
from exitbench.data.load import load_split
from exitbench.errors import as_user_errors
from exitbench.models.calibration import kind_named
from exitbench.models.policies import FixedExit, Policy
from exitbench.models.policy_text import check_rule_name, parse_policy
from exitbench.models.rules.fit import check_rule
from exitbench.models.rules.own import is_policy_reference, load_policy
from exitbench.target.calibrate import Method, calibrated_policy
from exitbench.target.networks import Loaded, Shape


def check_rule_text(text: str | None) -> None:
    """Check the name of an exit rule, and what sets it, before data and weights are asked for."""
    if text is None or is_policy_reference(text):
        return
    kind, at, method = text.partition("@")
    if at:
        kind_named(kind)
        Method.parsed(method)
    else:
        check_rule_name(text)


def deployed_policy(
    text: str | None, loaded: Loaded, dataset: str, shape: Shape, data: Path, known_as: str | None = None
) -> Policy:
    """Return the exit rule that ``text`` asks for; None for the weights' own, or without one, equal shares by entropy.

    Raises:
        InputError: If the rule is not of the form, for another number of exits, or needs gate heads that the network does not
            have, or a cost is out of reach.
    """
    policy = _policy_asked_for(text, loaded, dataset, shape, data, known_as)
    check_rule(policy, loaded.model)
    return policy


def _policy_asked_for(text: str | None, loaded: Loaded, dataset: str, shape: Shape, data: Path, known_as: str | None) -> Policy:
    model = loaded.model
    if text is None and loaded.policy is not None:
        return parse_policy(loaded.policy[0], model.n_exits, loaded.policy[1])
    if text is not None and is_policy_reference(text):
        return load_policy(text)
    if text is not None and "@" not in text:
        return parse_policy(text, model.n_exits, known_as)
    if last_exit_alone(text, loaded, dataset):
        return FixedExit(model.n_exits)
    kind, _, method = (text or "entropy@equal").partition("@")
    with as_user_errors():
        kind_named(kind)
    calibration = load_split(dataset, "calibration", shape, data)
    return calibrated_policy(model, calibration, kind, method)


def last_exit_alone(text: str | None, loaded: Loaded, dataset: str) -> bool:
    """Return whether nothing says which exits are to be taken."""
    return text is None and loaded.policy is None and is_handed_over(dataset) and not find_dataset(dataset).calibrated


def is_handed_over(dataset: str) -> bool:
    """Return whether the images are the user's, of which nothing is known."""
    return not find_dataset(dataset).listed
