"""One file per kind of processor; `choose.py` picks."""

from schedules.targets.kernel_target import KernelTarget, Tile

__all__ = ["KernelTarget", "Tile"]
