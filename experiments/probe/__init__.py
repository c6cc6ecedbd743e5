"""The feature probe: a head on a frozen network."""
