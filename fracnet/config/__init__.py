"""What the commands accept: the config schema, Hydra, and the objects that configs name."""
