"""Proof: stored counterexamples, checked and re-scored with nothing but the plain model. No attack's code is imported."""
