"""Latencies: table and plot."""
