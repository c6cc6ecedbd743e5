"""Heatmaps: computed, drawn, scored against annotations, and checked by randomizing weights."""
