"""Registers the rules that look at one exit alone: entropy, confidence, and a fixed exit."""

from __future__ import annotations

from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit
from exitbench.models.rules.registry import register_policy

register_policy("entropy", values="T1,T2,...", summary="softmax entropy (nats) below the threshold (Triple Wins)")(EntropyPolicy)
register_policy("confidence", values="T1,T2,...", summary="largest probability above the threshold (MSDNet)")(ConfidencePolicy)
register_policy("exit", values="k", summary="always exit k")(FixedExit)
