"""Colours and markers of all figures, and what signs on markers mean."""

from __future__ import annotations

# Okabe & Ito's palette: tells points and lines apart for colour-blind readers as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*X"

SHAPES = {
    "o": "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
    "s": "M-.9-.9h1.8v1.8h-1.8z",
    "D": "M0-1.25L1.25 0 0 1.25-1.25 0z",
    "^": "M0-1.1L1.1.9H-1.1z",
    "v": "M0 1.1L1.1-.9H-1.1z",
    "P": "M-.4-1.1h.8v.7h.7v.8h-.7v.7h-.8v-.7h-.7v-.8h.7z",
    "*": "M0-1.3L.31-.42 1.24-.4.5.16.76 1.05 0 .52-.76 1.05-.5.16-1.24-.4-.31-.42z",
    "X": "M-.5-1.1L0-.6.5-1.1 1.1-.5.6 0 1.1.5.5 1.1 0 .6-.5 1.1-1.1.5-.6 0-1.1-.5z",
}
"""The markers as SVG paths about the origin, in units of their radius."""

TINTS = {"clean": COLOURS[0], "attacked": COLOURS[1], "slowed": COLOURS[4]}
"""Colours of the kinds of images, in plots of a single network."""

MEANING = {
    "failure": "flagged: not to be believed",
    "warning": "flagged: may be lower",
    "not checked": "trust not checked",
}
