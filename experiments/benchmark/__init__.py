"""What `python -m experiments.benchmark.run` measures, on the same images for all sides."""
