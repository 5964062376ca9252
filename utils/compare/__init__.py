"""Comparison of settings over seeds: plan, trials, statistics, report."""
