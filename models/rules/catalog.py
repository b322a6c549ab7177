"""Every exit rule of ours: the modules that register them when they are imported, and the order of listings."""

from exitbench.models.rules import ensemble, gate, margin, patience, single_exit  # noqa: F401

ORDER = ("entropy", "confidence", "margin", "patience", "vote", "ensemble", "gate", "exit")
