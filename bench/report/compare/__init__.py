"""Two evaluations side by side: plot and terminal."""
