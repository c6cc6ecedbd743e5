"""Heatmaps: made, drawn, scored against marked fractures, and checked against lost weights."""
