"""Benchmarks: each comparison is paired in one run, results are medians and ratios."""
