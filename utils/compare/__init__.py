"""Comparison of settings over seeds: plan, cells, statistics, report."""
