"""Float convolutions by Winograd's method, of a network's input and inside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from tvm import tirx

from schedules.geometry import Convolution
from schedules.kernels import winograd, winograd_inside
from schedules.parts.epilogue import Epilogue
from schedules.parts.weights import lay_out
from schedules.records.bare_epilogue import bare_epilogue
from schedules.records.kernel_task import KernelTask, Work, said_of
from schedules.records.tile_space import unfilled
from schedules.targets.kernel_target import Choice, KernelTarget, Tile

_STEM, _INSIDE = "winograd_of_input", "winograd_inside"
# (down, along) that round no worse than the default does.
_SIZES = {_STEM: ((1, 2), (1, 3), (1, 4)), _INSIDE: ((2, 2), (2, 4), (4, 2))}


@dataclass(frozen=True, kw_only=True)
class WinogradTile(Choice):
    """A tile of the method is down x along outputs, which are found together."""

    down: int
    along: int
    tiles: int  # whose sums at a point are added up at a time
    lanes: int  # as of `Tile`, of these sums
    quantum: int
    band: int  # output rows that are computed before the next ones

    @property
    def tile(self) -> Tile:
        return Tile(pixels=self.tiles * self.along, lanes=self.lanes, quantum=self.quantum)


@dataclass(frozen=True, kw_only=True)
class WinogradTask(KernelTask[WinogradTile]):
    """planar: the activations are [N, C, H, W], a network's input."""

    choice = WinogradTile
    kinds = (_STEM, _INSIDE)

    conv: Convolution
    planar: bool

    @property
    def kind(self) -> str:
        return _STEM if self.planar else _INSIDE

    @property
    def work(self) -> Work:
        return "multiplications"

    @property
    def exact(self) -> bool:
        return False

    @property
    def title(self) -> str:
        return said_of("float Winograd", self.conv, self.outputs)

    def default(self, target: KernelTarget) -> WinogradTile:
        tile = target.winograd_tile(self.conv)
        if tile is None:
            raise ValueError("the target computes this layer directly")
        down, along = (1, winograd.OUTPUTS) if self.planar else winograd_inside.OUTPUTS
        return WinogradTile(
            down=down,
            along=along,
            tiles=max(1, tile.pixels // along),
            lanes=tile.lanes,
            quantum=tile.quantum,
            band=self._band(down, along, tile.lanes, tile.quantum),
        )

    def _band(self, down: int, along: int, lanes: int, quantum: int) -> int:
        """The default one."""
        if self.planar:
            return winograd.default_band(self.conv)
        full, rest = divmod(self.conv.out_channels, lanes)
        return winograd_inside.default_band(
            self.conv, full * lanes + -(-rest // quantum) * quantum, (down, along)
        )

    def refusal(self, tile: WinogradTile) -> str | None:
        if (tile.down, tile.along) not in _SIZES[self.kind]:
            return f"{tile.down} x {tile.along} outputs at a time round worse than the direct kernel"
        if tile.lanes % tile.quantum or tile.quantum % 4:
            return "its lanes are not whole vectors"
        if tile.tiles > 64 or tile.tiles * tile.lanes > 4096:
            return "it is larger than any processor could hold"
        if tile.band % tile.down or tile.band > -(-self.conv.out_height // tile.down) * tile.down:
            return f"a band of {tile.band} rows is none of {self.conv.out_height} in whole tiles"
        return unfilled(self.outputs, tile.lanes) if self.conv.out_channels > tile.lanes else None

    def candidates(self, target: KernelTarget) -> list[WinogradTile]:
        found = [self.default(target), *self._of_registers(target)]
        return [tile for tile in dict.fromkeys(found) if self.refusal(tile) is None]

    def _of_registers(self, target: KernelTarget) -> Iterator[WinogradTile]:
        conv, quantum = self.conv, target.floats
        for vectors, tiles in product((1, 2, 4), range(1, 17)):
            lanes = vectors * quantum
            held = tiles * vectors + vectors + (tiles if target.together > 1 else 1)
            if lanes - quantum >= conv.out_channels or not (
                target.registers // 4 <= held <= target.registers + 2
            ):
                continue
            for down, along in _SIZES[self.kind]:
                if tiles > -(-conv.out_width // along) * (1 if self.planar else -(-conv.out_height // down)):
                    continue
                rows = -(-conv.out_height // down) * down
                usual = self._band(down, along, lanes, quantum)
                for band in (usual, usual // 2, 2 * usual, 4 * usual):
                    whole = min(rows, max(1, band // down) * down)
                    yield WinogradTile(
                        down=down, along=along, tiles=tiles, lanes=lanes, quantum=quantum, band=whole
                    )

    def bare_kernel(self, tile: WinogradTile, target: KernelTarget) -> tirx.PrimFunc:
        return self.kernel(tile, target, bare_epilogue(self.outputs, self.conv.out_shape, "float32"))

    def kernel(self, tile: WinogradTile, target: KernelTarget, epilogue: Epilogue) -> tirx.PrimFunc:
        if self.planar:
            return winograd.winograd_convolution(
                self.conv, tile.tile, target, epilogue, outputs=tile.along, rows_of_band=tile.band
            )
        return winograd_inside.winograd_inside(
            self.conv,
            tile.tile,
            target,
            epilogue,
            outputs=(tile.down, tile.along),
            rows_of_band=tile.band,
        )

    def laid_out(self, weights: np.ndarray, tile: WinogradTile) -> np.ndarray:
        """float32 [O, KH, KW, C] -> as the kernel reads them."""
        if self.planar:
            turned = weights.transpose(0, 3, 1, 2)
            made = winograd.transform_weights(turned, self.conv, tile.along)
        else:
            made = winograd_inside.transform_weights(weights, (tile.down, tile.along))
        return lay_out(made, 1, tile.tile)
