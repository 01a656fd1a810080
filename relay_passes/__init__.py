"""Relax -> Relax: what is binary is found, folded, laid out, packed and lowered.

The folder keeps the name that it was commissioned with. TVM no longer has Relay; the graph IR is Relax.
`pipeline.py` lists the phases in order.
"""

from relay_passes.layers import Layer
from relay_passes.pipeline import Lowered, finish, lower

__all__ = ["Layer", "Lowered", "finish", "lower"]
