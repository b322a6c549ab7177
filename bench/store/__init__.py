"""Storage of evaluations: cells, run records, archives."""
