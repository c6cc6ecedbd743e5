"""Metrics, decisions and comparisons from a predictions table: no torch, no images."""
