"""The networks that are evaluated: multi-exit architectures, exit policies, costs, the registry and the weights.

This package imports neither ``exitbench.attacks`` nor the rest of ``exitbench``.
Inputs are NCHW floats in [0, 1]; models return logits and hold their own normalisation.
"""
