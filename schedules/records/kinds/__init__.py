"""The kinds of kernels that are tuned, one a file: what names such a kernel, and what it can be made by."""
