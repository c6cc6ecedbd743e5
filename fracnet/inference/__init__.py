"""Predicting new images with a finished run."""
