"""Operator by operator: which numbers a result can hold, from those of the operands."""

from relay_passes.ir.transfers import arithmetic, layers, moves, reductions
from relay_passes.ir.transfers.operands import Transfer

TRANSFERS: dict[str, Transfer] = {
    f"relax.{name}": transfer
    for table in (moves.TRANSFERS, arithmetic.TRANSFERS, reductions.TRANSFERS)
    for name, transfer in table.items()
} | layers.TRANSFERS
