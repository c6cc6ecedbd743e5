"""What `python -m fracnet.benchmark` measures: fracnet against other ways, on the same images."""
