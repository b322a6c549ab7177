"""One evaluation as a table and as a plot, for notebooks and papers."""
