"""Live modules, exported programs and checkpoints of PyTorch."""
