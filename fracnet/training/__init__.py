"""What surrounds a fit: run folder, provenance, callbacks, predictions."""
