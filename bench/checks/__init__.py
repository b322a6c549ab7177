"""Measurements that show whether a robustness number can be trusted."""
