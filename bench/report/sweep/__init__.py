"""Curves of cost against accuracy: table, plot and terminal."""
