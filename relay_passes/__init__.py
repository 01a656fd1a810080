"""Relax -> Relax: what is binary is found, folded, laid out, packed and lowered.

The folder keeps the name that it was commissioned with. TVM no longer has Relay; the graph IR is Relax.
`pipeline.py` lists the phases in order. A file named by a verb is a pass, which says what it requires and
ensures; `ir/` has what passes are written with, the operators between the imported and the lowered network
among it, and `kernels/` the way from a group of operators to a kernel, a file for each kind.
"""

from relay_passes.ir.layers import Layer
from relay_passes.kernels.share import shared_kernels
from relay_passes.name_kernels import name_kernels
from relay_passes.pipeline import Lowered, finish, lower
from relay_passes.plan_memory import activation_bytes

__all__ = ["Layer", "Lowered", "activation_bytes", "finish", "lower", "name_kernels", "shared_kernels"]
