"""Which exits some input may take under a policy."""

from __future__ import annotations

import torch

from exitbench.models.policies import Policy


def exits_within_reach(policy: Policy, n_exits: int) -> list[int]:
    """Return the exits (0-based) that some input may take: none behind a gate that never shuts, none whose gate never opens.

    A gate without a gradient is recognised, such as one with an infinite threshold, not a finite one that no logits can reach.
    If a rule has no gradient at all, nothing is known and all exits are returned.
    """
    if not policy.has_gradient:
        return list(range(n_exits))
    logits = torch.zeros(n_exits, 1, 2, requires_grad=True)
    found = []
    for k in range(n_exits - 1):
        with torch.enable_grad():
            slack = policy.slack(logits[: k + 1])
        if slack.requires_grad or slack > 0:
            found.append(k)
        if not slack.requires_grad and slack > 0:
            return found
    return [*found, n_exits - 1]
