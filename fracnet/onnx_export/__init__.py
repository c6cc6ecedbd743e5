"""ONNX export of a finished run, and the checks that prove it."""
