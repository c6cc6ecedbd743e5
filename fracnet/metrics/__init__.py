"""Metrics, their intervals and tests: numpy in, numpy out."""
