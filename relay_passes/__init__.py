"""Relax -> Relax: what is binary is found, folded, laid out, packed and lowered.

The folder keeps the name that it was commissioned with. TVM no longer has Relay; the graph IR is Relax.
`pipeline.py` lists the phases in order. A file named by a verb is a pass; besides, `operators.py` has the
operators between the imported and the lowered network, `two_valued.py` the analysis behind `find_binary` and
`bound_values.py`, with `transfers/` and `value_range.py`, what that has to know of a sign, `layers.py` the
table of what was found, and `rewrite.py` the way in which every pass walks.
"""

from relay_passes.ir.layers import Layer
from relay_passes.name_kernels import name_kernels
from relay_passes.pipeline import Lowered, finish, lower
from relay_passes.plan_memory import activation_bytes

__all__ = ["Layer", "Lowered", "activation_bytes", "finish", "lower", "name_kernels"]
