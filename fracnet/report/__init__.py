"""Verdicts, tables, charts and pages of runs, sweeps and comparisons."""
