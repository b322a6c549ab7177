"""Charts of cost against accuracy: one Vega specification, from which the page, PNG, SVG and PDF are made."""
