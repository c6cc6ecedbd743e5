"""Weights & Biases beside the CSV: what is told to it, and the process that talks to it."""
