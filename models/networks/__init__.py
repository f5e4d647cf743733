"""PyTorch definitions of the networks (needs the `train` extra)."""
