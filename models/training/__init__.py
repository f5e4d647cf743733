"""Pairs, losses, training loop and ONNX export (needs the `train` extra)."""
