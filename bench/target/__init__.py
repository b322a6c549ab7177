"""The target of an evaluation: a network, its weights, its exit policy and its costs."""
