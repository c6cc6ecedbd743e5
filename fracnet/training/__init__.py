"""Training: checks before it, the fit, callbacks, loggers, sweeps and resuming."""
