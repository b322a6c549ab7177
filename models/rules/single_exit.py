"""Registers the rules that look at one exit alone: entropy, confidence, and a fixed exit."""

from __future__ import annotations

from exitbench.models.policies import ConfidencePolicy, EntropyPolicy, FixedExit
from exitbench.models.rules.registry import register_policy

register_policy("entropy", values="T1,T2,...")(EntropyPolicy)
register_policy("confidence", values="T1,T2,...")(ConfidencePolicy)
register_policy("exit", values="k")(FixedExit)
