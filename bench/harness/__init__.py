"""Plan, run, certify, store: from names to cells on disk."""
