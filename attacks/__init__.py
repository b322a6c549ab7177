"""How it is attacked: objectives, regions, methods, compositions, and adapters to other libraries.

Attacks propose candidates and judge nobody; the harness in ``bench`` re-scores every candidate.
May import ``models``, never ``bench``.
"""
