"""The kernels, each with its plain reference."""
