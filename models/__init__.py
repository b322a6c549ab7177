"""What is evaluated: multi-exit networks, exit policies, costs, the registry and the weights.

The bottom of the one-way import order ``models <- attacks <- bench``.
Inputs are NCHW floats in [0, 1]; models return logits and hold their own normalisation.
"""
