"""Arm processors that one does not have: QEMU's user mode on this machine.

Boards on a network will join them here. This package knows TVM and numpy only, and imports neither torch nor
onnx.
"""
