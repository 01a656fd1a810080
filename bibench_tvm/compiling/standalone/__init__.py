"""A network as a library for C: no TVM, no Python, no operating system."""
