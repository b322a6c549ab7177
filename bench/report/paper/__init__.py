"""Tables for papers, from evaluations: LaTeX, Markdown, a tidy CSV, and the entries to cite."""
