"""Helpers without a subject of their own: errors, files, progress, text."""
