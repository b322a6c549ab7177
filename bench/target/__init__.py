"""What is evaluated: a network, its weights, its exit policy and its costs."""
