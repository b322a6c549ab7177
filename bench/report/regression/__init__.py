"""The outcome of a regression check: terminal, Markdown and JUnit XML."""
