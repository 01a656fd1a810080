"""The overall metrics of the BiBench paper, equations 2 to 9.

An entry that is not there (None), or is no finite number, or would have to be divided by 0, is left out and
named: it is never a zero. An overall metric is that of the parts that are there. `docs/tracks.md` says how
the paper itself reads the equations.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Literal

import msgspec

Reading = Literal["equation", "paper"]
"""What the equation and the text say, or what the paper's printed numbers come from, where these differ."""

READINGS: tuple[Reading, ...] = ("equation", "paper")
Figure = float | None
Pairs = Mapping[str, tuple[Figure, Figure]]
"""Name of an entry -> the figure of the binarized network, and that of the float network in the same unit."""


class Metric(msgspec.Struct, frozen=True):
    """A number, of how many entries it was made, and the names of those that were left out."""

    value: Figure  # None where there was no entry
    count: int
    missing: tuple[str, ...] = ()


def relative_accuracy(accuracies: Pairs) -> Metric:
    """E(A_bi / A), the inside of equations 2 and 3, in percent.

    accuracies: of each network on each data set, in any unit in which more is better and 0 is nothing.
    """
    return mean({name: _ratio(binary, floating, 100) for name, (binary, floating) in accuracies.items()})


def om_task(tasks: Mapping[str, Metric]) -> Metric:
    """Equation 2, the learning task track: the quadratic mean of the relative accuracies of N tasks, percent.

    tasks: of each task its `relative_accuracy`.
    """
    return _quadratic_mean(tasks)


def om_arch(cnn: Metric, transformer: Metric, mlp: Metric) -> Metric:
    """Equation 3, the neural architecture track: the quadratic mean over three kinds of networks, percent.

    Each is the `relative_accuracy` of the networks of that kind.
    """
    return _quadratic_mean({"CNNs": cnn, "Transformers": transformer, "MLPs": mlp})


def generalization_gap(clean: Figure, corrupted: Figure) -> Figure:
    """Equation 4: G = A_norm - A_corr, in the unit of the accuracies; None where one is missing."""
    return None if clean is None or corrupted is None else clean - corrupted


def relative_gap(gaps: Pairs) -> Metric:
    """E(G / G_bi), the inside of equation 5, in percent: more than 100 is more robust than the float network.

    gaps: of each corrupted set the `generalization_gap`.
    """
    return mean({name: _ratio(floating, binary, 100) for name, (binary, floating) in gaps.items()})


def om_robust(tasks: Mapping[str, Metric]) -> Metric:
    """Equation 5, the corruption robustness track: the quadratic mean over C corrupted tasks, percent.

    tasks: of each benchmark, such as CIFAR10-C with all its sets, its `relative_gap`.
    """
    return _quadratic_mean(tasks)


def sensitivity(results: Pairs) -> Metric:
    """std(A_hyper) / std(A_bi_hyper), of equation 6, in percent: more is less sensitive.

    results: the accuracy of each training, by its optimizer, rate, schedule and seed. Those are taken that
    both networks have; there have to be two.
    """
    there = {name: pair for name, pair in results.items() if all(map(_is_number, pair))}
    missing = tuple(name for name in results if name not in there)
    if len(there) < 2:
        return Metric(None, len(there), missing)
    binary, floating = (statistics.stdev(values) for values in zip(*there.values(), strict=True))
    return Metric(_ratio(floating, binary, 100), len(there), missing)


def time_cost(seconds: Pairs) -> Metric:
    """E(T_train / T_bi_train), of equation 6, in percent: 50 is twice the time of the float network.

    seconds: of a training of each network, on the same machine and for the same number of epochs.
    """
    return mean({name: _ratio(floating, binary, 100) for name, (binary, floating) in seconds.items()})


def om_train(sensitivity: Metric, time: Metric) -> Metric:
    """Equation 6, the training consumption track: the quadratic mean of `sensitivity` and `time_cost`, %."""
    return _quadratic_mean({"sensitivity": sensitivity, "time": time})


def compression_ratio(parameters: Figure, binary: Figure, floats: Figure) -> Figure:
    """Equation 7: r_c = |M| / ((|M| - |M'|) / 32 + |M'|).

    parameters: |M|, of the float network; binary: |M| - |M'|, those of one bit; floats: |M'|, those of 32
    bits that remain in the binarized network or that it has besides. None where one of them is not known.
    """
    return _saving(parameters, binary, floats, 32)


def speedup_ratio(operations: Figure, binary: Figure, floats: Figure) -> Figure:
    """Equation 7: r_s = FLOPs / ((FLOPs - FLOPs') / 64 + FLOPs'), operations of a run.

    operations: of the float network; binary: those on two operands of one bit, of which 64 take the time of
    one; floats: those that remain in float or that the binarized network has besides.
    """
    return _saving(operations, binary, floats, 64)


def om_comp(compression: Mapping[str, Figure], speedup: Mapping[str, Figure]) -> Metric:
    """Equation 8, the theoretical complexity track: the quadratic mean of E(r_c) and E(r_s), a factor.

    Both are by the names of networks.
    """
    return _quadratic_mean({"compression": mean(compression), "speed-up": mean(speedup)})


def saving(costs: Pairs) -> Metric:
    """E(T_infer / T_bi_infer) or E(S_infer / S_bi_infer), of equation 9, a factor.

    costs: the time of a run, or the storage, on each device. What cannot be deployed is None.
    """
    return mean({name: _ratio(floating, binary) for name, (binary, floating) in costs.items()})


def om_infer(speedup: Metric, compression: Metric) -> Metric:
    """Equation 9, the hardware inference track: the quadratic mean of the `saving` of time and of storage."""
    return _quadratic_mean({"speed-up": speedup, "compression": compression})


def _is_number(value: Figure) -> bool:
    return value is not None and value is not False and math.isfinite(value)


def _ratio(above: Figure, below: Figure, times: float = 1) -> Figure:
    if not _is_number(above) or not _is_number(below) or not below:
        return None
    return times * above / below  # type: ignore[operator]


def _saving(whole: Figure, binary: Figure, floats: Figure, in_one: int) -> Figure:
    if binary is None or floats is None:
        return None
    return _ratio(whole, binary / in_one + floats)


def mean(entries: Mapping[str, Figure]) -> Metric:
    """E(.), of the entries that are there; in their unit."""
    there = [value for value in entries.values() if _is_number(value)]
    missing = tuple(name for name, value in entries.items() if not _is_number(value))
    return Metric(statistics.fmean(there) if there else None, len(there), missing)  # type: ignore[arg-type]


def _quadratic_mean(parts: Mapping[str, Metric]) -> Metric:
    """sqrt(E(x^2)), to which a negative part adds as a positive one does. Of a part that is there, what it
    lacks is named too."""
    there = [part.value for part in parts.values() if part.value is not None]
    missing: list[str] = []
    for name, part in parts.items():
        missing += [name] if part.value is None else [f"{name}: {entry}" for entry in part.missing]
    value = math.sqrt(statistics.fmean(x * x for x in there)) if there else None
    return Metric(value, len(there), tuple(missing))
