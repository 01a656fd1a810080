"""ONNX's own node tests, each compiled for this machine and run; all of them with
`python tests/bibench_tvm/importer/from_onnx/test_onnx_nodes.py`.

A test is the same, refused in a sentence, wrong, or an internal error; the last two are listed, and there
are to be none. Each is tried as it is written, where every operand is an input of the graph, and then with
all but the first operand as constants, as files have axes, sizes and weights. The suite tries those of the
operators that the importer mends, and one of each other operator.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

Outcome = tuple[str, str]  # one of OUTCOMES, and what happened
OUTCOMES = ("same", "refused", "wrong", "internal")
LONGEST = 300  # seconds that one test may take


@functools.cache
def node_tests(operators: frozenset[str] = frozenset()) -> dict[str, TestCase]:
    """Name -> test, of these operators or all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    return {
        test.name: test
        for test in tests
        if not operators or operators & {node.op_type for node in test.model.graph.node}
    }


def outcome(test: TestCase) -> Outcome:
    """The worst of both ways, or `same` if one of them is and the other is refused."""
    outcomes = [_attempt(test, constants=False)]
    if len(test.model.graph.input) > 1:
        outcomes.append(_attempt(test, constants=True))
    return next(
        found for kind in ("internal", "wrong", "same", "refused") for found in outcomes if found[0] == kind
    )


def _attempt(test: TestCase, *, constants: bool) -> Outcome:
    from bibench_tvm import compile_model
    from bibench_tvm.cli.errors import BibenchError

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        inputs, expected = test.data_sets[0]
        model = onnx.ModelProto()
        model.CopyFrom(test.model)
        if constants:
            names = [value.name for value in model.graph.input]
            if not all(isinstance(value, (np.ndarray, np.generic)) for value in inputs[1:]):
                return "refused", "an operand is not a tensor"
            pairs = zip(names[1:], inputs[1:], strict=True)
            tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in pairs]
            model.graph.initializer.extend(tensors)
            del model.graph.input[1:]
            inputs = inputs[:1]
        onnx.save(model, path)
        pairs = zip(model.graph.input, inputs, strict=True)
        shapes = {value.name: x.shape for value, x in pairs if isinstance(x, (np.ndarray, np.generic))}
        try:
            artifact = compile_model(path, out=Path(folder, "out"), input_shapes=shapes)
            got = artifact.run(*inputs)
        except BibenchError as error:
            sentence = str(error)
            return ("internal" if "a fault of the" in sentence else "refused"), sentence
        except Exception as error:
            return "internal", f"{type(error).__name__}: {error}"
    results = list(got) if isinstance(got, (tuple, list)) else [got]
    for name, have, want in zip((v.name for v in model.graph.output), results, expected, strict=True):
        try:
            assert have.shape == np.shape(want) and have.dtype == want.dtype, (
                f"{have.dtype} {have.shape} where {want.dtype} {np.shape(want)} is right"
            )
            np.testing.assert_allclose(have, want, rtol=test.rtol, atol=test.atol)
        except AssertionError as error:
            if name in _by_reference(model, inputs, have, test):
                continue
            return "wrong", f"output {name!r}: " + " ".join(str(error).split())[:200]
    return "same", ""


def _by_reference(model: onnx.ModelProto, inputs: list[Any], have: np.ndarray, test: TestCase) -> list[str]:
    """The outputs that ONNX's reference makes of the model, where they are the ones that we have.

    The tests of an operator's definition expect what the operator gives, and a definition may round more.
    """
    feeds = {value.name: x for value, x in zip(model.graph.input, inputs, strict=True)}
    results = ReferenceEvaluator(model).run(None, feeds)
    return [
        value.name
        for value, want in zip(model.graph.output, results, strict=True)
        if np.shape(want) == have.shape and np.allclose(have, want, test.rtol, test.atol, equal_nan=True)
    ]


def _work(pipe: Connection, operators: frozenset[str]) -> None:
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the progress of a thousand compilations
    tests = node_tests(operators)
    while name := pipe.recv():
        pipe.send(outcome(tests[name]))


class Worker:
    """A process that tries one test after another, and may die of one."""

    def __init__(self, operators: frozenset[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, operators), daemon=True)
        self.process.start()
        theirs.close()
        self.name = ""

    def start(self, name: str) -> None:
        self.name, self.since = name, time.monotonic()
        self.pipe.send(name)

    def found(self) -> Outcome | None:
        """What came of the test that was started, None while it runs."""
        if self.pipe.poll():
            try:
                return self.pipe.recv()
            except EOFError:
                self.process.join()
                return "internal", f"the process died with {self.process.exitcode}"
        if time.monotonic() - self.since > LONGEST:
            self.process.kill()
            return "internal", f"not done in {LONGEST} seconds"
        return None


def outcomes(operators: frozenset[str], processes: int) -> Iterator[tuple[str, Outcome]]:
    """Try all tests of these operators, in several processes."""
    pending = list(node_tests(operators))[::-1]
    workers = [Worker(operators) for _ in range(min(processes, len(pending)))]
    while pending or any(worker.name for worker in workers):
        for position, worker in enumerate(workers):
            if worker.name and (result := worker.found()):
                yield worker.name, result
                worker.name = ""
                if result[0] == "internal" and not worker.process.is_alive():
                    workers[position] = worker = Worker(operators)
            if not worker.name and pending:
                worker.start(pending.pop())
        time.sleep(0.005)


MENDED = (
    "resize_downsample_scales_linear_antialias",
    "resize_downsample_sizes_cubic_antialias",
    "resize_downsample_scales_cubic_A_n0p5_exclude_outside",
    "resize_downsample_scales_linear",
    "resize_upsample_scales_linear_half_pixel_symmetric",
    "resize_tf_crop_and_resize",
    "upsample_nearest",
    "isinf_negative",
    "isinf_positive",
    "layer_normalization_4d_axis0",
    "layer_normalization_3d_axis2_epsilon",
    "rms_normalization_2d_axis0",
    "dropout_default_mask",
    "spacetodepth_crd_mode_example",
    "convtranspose_output_shape",
    "mod_float_edge_cases_fmod_0_float32",
    "bitshift_left_int32_shift_ge_width",
    "reduce_max_bool_inputs",
    "mish",
    "mish_expanded",
    "sinh",
    "cosh",
    "scatter_elements_with_negative_indices",
    "scatter_elements_with_reduction_max",
    "gather_elements_negative_indices",
    "gathernd_example_int32_batch_dim1",
    "matmulinteger",
    "lppool_2d_dilations",
    "rotary_embedding_interleaved",
    "attention_4d",
    "attention_23_boolmask_fullymasked_row_nan_robustness_expanded",
)
REFUSED = {
    "batchnorm_example_training_mode": "training_mode=1: export the network in its eval mode",
    "training_dropout_mask": "training_mode: a compiled network draws no random numbers",
    "roialign_mode_max": "mode='max'",
    "nonmaxsuppression_single_box": "how many boxes it keeps depends on the values of the input",
    "constantofshape_float_ones": "its shape is computed from the input",
    "pow_types_int64_int64": "constant exponent from 1 to 16",
}


def _of_each_operator() -> list[str]:
    """The first test of each operator of one node."""
    first: dict[str, str] = {}
    for name, test in node_tests().items():
        if len(test.model.graph.node) == 1:
            first.setdefault(test.model.graph.node[0].op_type, name)
    return [name for name in first.values() if name.removeprefix("test_") not in (*MENDED, *REFUSED)]


@pytest.mark.parametrize("name", MENDED)
def test_mended(name):
    assert outcome(node_tests()[f"test_{name}"]) == ("same", "")


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_sentence(name):
    kind, sentence = outcome(node_tests()[f"test_{name}"])
    assert kind == "refused" and REFUSED[name] in sentence


def test_one_of_each_operator_is_the_same_or_refused():
    kinds = {name: outcome(node_tests()[name]) for name in _of_each_operator()}
    bad = {name: found for name, found in kinds.items() if found[0] not in ("same", "refused")}
    assert not bad
    assert sum(kind == "same" for kind, _ in kinds.values()) > 90


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "operators", nargs="*", help="the operators to try, such as Resize; all, if none is named"
    )
    parser.add_argument("-j", "--processes", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="list those that are the same or refused, too")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    for name, (kind, words) in outcomes(frozenset(options.operators), options.processes):
        counts[kind] += 1
        if options.all or kind in ("wrong", "internal"):
            print(f"{kind:8} {name}  {words}", flush=True)
    print(
        f"{counts.total()} node tests of ONNX {onnx.__version__}:",
        ", ".join(f"{counts[k]} {k}" for k in OUTCOMES),
    )
    return bool(counts["wrong"] + counts["internal"])


if __name__ == "__main__":
    sys.exit(main())
