"""Trust checks: whether an evaluation's numbers can be believed, measured on its first slice and shown as flags."""
