"""Pure functions on a predictions table: metrics, intervals, baselines. No torch, no images."""
