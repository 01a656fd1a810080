"""Arm processors that one does not have: QEMU in user mode on this machine."""
