"""The regression gate: an evaluation against a committed baseline, sample by sample."""
