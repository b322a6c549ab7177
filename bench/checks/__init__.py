"""Measurements that tell whether a robustness number can be believed."""
