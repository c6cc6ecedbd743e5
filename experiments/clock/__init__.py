"""How long it takes to a useful model, beside the loops that people write."""
