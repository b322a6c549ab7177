"""The attacks: objectives, regions, methods, compositions, and adapters to other libraries.

Attacks generate candidates; the runner re-scores every candidate on the plain model.
This package imports ``exitbench.models`` and nothing else of ``exitbench``.
"""
