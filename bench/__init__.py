"""The harness: data, cells, store, certification, verdicts, reports, training and the command line.

The top of the one-way import order ``models <- attacks <- bench``.
"""
