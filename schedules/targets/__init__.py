"""One file for each family of processors, with all that is known of it; `choose.py` lists them and picks."""

from schedules.targets.kernel_target import KernelTarget, Tile

__all__ = ["KernelTarget", "Tile"]
