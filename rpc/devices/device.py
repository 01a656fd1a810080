"""A phone or board without TVM: questions as to a `rpc.session.Board`, which runner.c answers there."""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rpc.built_kernel import BuiltKernel
from rpc.devices.answers import Answer, Conditions, Description, Done, KernelTimes, Timing, answer
from rpc.devices.build import TRIPLES, NetworkInC, build_describer, build_kernels, build_runner
from rpc.devices.transport import Said, Transport, connect, last_words
from rpc.emulation import tensor_file
from rpc.emulation.qemu import death_of
from rpc.listing import BoardInfo, RemoteError
from rpc.machine import LLVM_FEATURES
from rpc.machine_name import machine_name

_SHORT_S = 60
_LATE_S = 30  # after the limit that the program has of itself
_MOST_SENT = 64 << 20  # bytes of inputs at a time: phones have little room
_OF_A_SIGNAL = 128  # what a shell adds to a signal's number
# LLVM's names of Arm's cores, by the part number that they say.
_CORES = {
    0xD03: "cortex-a53", 0xD04: "cortex-a35", 0xD05: "cortex-a55", 0xD07: "cortex-a57", 0xD08: "cortex-a72",
    0xD09: "cortex-a73", 0xD0A: "cortex-a75", 0xD0B: "cortex-a76", 0xD0D: "cortex-a77", 0xD41: "cortex-a78",
    0xD44: "cortex-x1", 0xD46: "cortex-a510", 0xD47: "cortex-a710", 0xD48: "cortex-x2", 0xD4D: "cortex-a715",
    0xD4E: "cortex-x3", 0xD80: "cortex-a520", 0xD81: "cortex-a720", 0xD82: "cortex-x4",
}  # fmt: skip
_ARM = 0x41


class ProgramFailed(RemoteError):
    """The program that was sent to a device crashed there, hung or refused its work; the device is fine."""


@contextlib.contextmanager
def reach(key: str, *, limit_s: float) -> Iterator[Device]:
    """The device `adb:SERIAL` or `ssh:HOST`, with a folder of its own there, which is gone afterwards.

    limit_s: for each call of the program there. Raises RemoteError, ValueError for a wrong key, and
    EmulationUnavailable where nothing can be built for it here.
    """
    transport = connect(key)
    folder = _one_word(transport, transport.folder_line())
    try:
        yield Device(transport, folder, limit_s)
    finally:
        with contextlib.suppress(RemoteError):
            transport.run(f"rm -rf {shlex.quote(folder)}", _SHORT_S)


def describe(key: str) -> BoardInfo:
    """What the device says of itself. Raises as `reach` does."""
    with reach(key, limit_s=_SHORT_S) as device:
        return device.info


def _one_word(transport: Transport, line: str) -> str:
    said = transport.run(line, _SHORT_S)
    word = said.output.decode(errors="replace").strip()
    if said.status or not word.isprintable() or not word:
        raise transport.refuse(f"`{line}`", f"{said.words}\n{word}")
    return word


class Device:
    """A device that is ours for a while. What it does raises RemoteError."""

    takes_c = True  # a network as a library for C, and no other
    part_s = math.inf  # of timed runs that are asked for at a time: each time the program starts anew

    def __init__(self, transport: Transport, folder: str, limit_s: float):
        self._transport, self._folder, self._limit_s = transport, folder, limit_s
        self._threads = 1
        self._send_name = 0
        said = _one_word(transport, "uname -m")
        if (machine := machine_name(said)) not in TRIPLES:
            known = ", ".join(TRIPLES)
            raise RemoteError(f"The device {transport.key} is {said}, and programs are made for {known}.")
        self.machine = machine
        self._describer = self.send_program(build_describer(machine))
        self.info = self._describe()

    def __str__(self) -> str:
        return f"the device {self._transport.key}"

    def conditions(self) -> dict[str, Any]:
        """What a measurement depends on, read there now; see `rpc.machine.conditions`."""
        return msgspec.to_builtins(self.ask(self._describer, ["conditions"], Conditions))

    def threads(self) -> int:
        return self._threads

    def use_threads(self, count: int) -> None:
        """Times networks on so many threads from now on, on as many cores, the fastest ones."""
        if count > self.info.cores:
            raise RemoteError(
                f"{count} threads were asked for, and {self} lets {self.info.cores} cores be used."
            )
        self._threads = count

    def network_in_c(self, network: NetworkInC, inputs: int) -> NetworkOnDevice:
        """Builds the program of a network with so many inputs, and sends it. Raises EmulationUnavailable."""
        with tempfile.TemporaryDirectory() as folder:
            program = build_runner(self.machine, network, inputs, Path(folder))
            content = program.read_bytes()
            return NetworkOnDevice(self, self.send_program(program), network.outputs, content)

    def time_kernels(
        self, kernels: Sequence[BuiltKernel], *, outputs: int, rounds: int, burst_ms: int
    ) -> tuple[list[list[float]], list[list[np.ndarray]]]:
        """Seconds of a call, for each kernel those of every round, and the last `outputs` tensors of each as
        its first call leaves them. In a round each kernel has its turn, a burst of calls that takes so long.

        Where the device counts instructions, a round is one call each. The kernels are ELF objects for it,
        and run on one thread. Raises ProgramFailed, EmulationUnavailable.
        """
        with tempfile.TemporaryDirectory() as folder:
            program = self.send_program(build_kernels(self.machine, kernels, outputs, Path(folder)))
        try:
            lists = [kernel.arrays for kernel in kernels]
            said, found = self.compute(program, lists, "kernels", rounds, 1000 * burst_ms, kind=KernelTimes)
        finally:
            self._transport.run(f"rm -f {shlex.quote(program)}", _SHORT_S)
        if [len(taken) for taken in said.nanoseconds] != [rounds] * len(kernels):
            raise RemoteError(f"The program on {self} timed other kernels than it was to.")
        return [[one * 1e-9 for one in taken] for taken in said.nanoseconds], found

    def send_program(self, program: Path) -> str:
        """Its path there, which no other has."""
        there = self.send(program)
        if self._transport.run(f"chmod 700 {shlex.quote(there)}", _SHORT_S).status:
            raise RemoteError(f"On {self}, a program cannot be made executable.")
        return there

    def send(self, file: Path) -> str:
        self._send_name += 1
        there = f"{self._folder}/{self._send_name}"
        self._transport.send(file, there)
        return there

    def ask(self, program: str, arguments: Sequence[object], kind: type[Answer]) -> Answer:
        """Runs a program there, with the limit that it was told."""
        line = shlex.join([program, *map(str, arguments)])
        said = self._transport.run(f"cd {shlex.quote(self._folder)} && {line}", self._limit_s + _LATE_S)
        if said.status:
            raise self._failure(said)
        return answer(said.output, kind, str(self))

    def compute(
        self, program: str, samples: Sequence[Sequence[np.ndarray]], *what: object, kind: type[Answer]
    ) -> tuple[Answer, list[list[np.ndarray]]]:
        """Runs a program on lists of tensors, inputs and outputs of any content; what: its arguments, but for
        the limit and the files. Gives what it says, and the outputs of each list."""
        with tempfile.TemporaryDirectory() as folder:
            sent, received = Path(folder, "inputs"), Path(folder, "outputs")
            tensor_file.write(sent, samples)
            inputs = self.send(sent)
            outputs = f"{inputs}-outputs"
            try:
                limit = max(1, math.ceil(self._limit_s))
                said = self.ask(program, [what[0], limit, *what[1:], inputs, outputs], kind)
                self._transport.receive(outputs, received)
            finally:
                self._transport.run(f"rm -f {shlex.quote(inputs)} {shlex.quote(outputs)}", _SHORT_S)
            try:
                promised, lists = tensor_file.read(received)
            except ValueError as problem:
                raise RemoteError(f"The output of the program on {self} {problem}.") from None
        if not promised == len(lists) == len(samples):
            raise RemoteError(f"The program on {self} gave {len(lists)} of {len(samples)} results.")
        return said, lists

    def _describe(self) -> BoardInfo:
        said = self.ask(self._describer, ["describe"], Description)
        machine = machine_name(said.machine)
        features = {LLVM_FEATURES[word] for word in said.features.split() if word in LLVM_FEATURES}
        return BoardInfo(
            key=self._transport.key,
            address=(self._transport.key, 0),
            emulated=said.emulated,
            cpu=_name_of_core(said.midr) or said.model or machine,
            machine=self.machine,
            cores=said.cores,
            features=tuple(sorted(features)),
            governor=said.governor,
            memory_bytes=said.memory_bytes,
            tvm="none",
        )

    def _failure(self, said: Said) -> RemoteError:
        """Why a program ended as it should not."""
        status = said.status or 0
        words = f"{said.output.decode(errors='replace')}\n{said.words}"
        if status in (126, 127):
            return RemoteError(
                f"The program could not be started on {self}: {last_words(words)} Its folder may forbid "
                "programs; TMPDIR names another."
            )
        if status > _OF_A_SIGNAL:
            with contextlib.suppress(ValueError):  # no such signal
                if status - _OF_A_SIGNAL == signal.SIGALRM:
                    return ProgramFailed(
                        f"On {self}, the program ran longer than the {self._limit_s:g} s that it has, "
                        "and was ended."
                    )
                return ProgramFailed(f"The program on {self} {death_of(status - _OF_A_SIGNAL)}")
        return ProgramFailed(f"On {self}: {last_words(words)}")


class NetworkOnDevice:
    """A network that lies on a device as a program. Inputs are arrays of the shapes and dtypes that it was
    compiled for."""

    def __init__(self, device: Device, program: str, outputs: Sequence[np.ndarray], content: bytes):
        self._device, self._program, self._outputs = device, program, outputs
        self.content, self.machine, self.where = content, device.machine, str(device)
        self.timing: Timing | None = None  # the last
        self.timed_outputs: list[np.ndarray] = []

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs, tuples flattened in order."""
        return next(self.run_each([inputs]))

    def run_each(self, samples: Iterable[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """The outputs of each sample; many are sent at a time."""
        part: list[list[np.ndarray]] = []
        size = 0
        for sample in samples:
            part.append([*sample, *self._outputs])
            size += sum(array.nbytes for array in part[-1])
            if size > _MOST_SENT:
                yield from self._compute(part)
                part, size = [], 0
        if part:
            yield from self._compute(part)

    def _compute(self, part: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        return self._device.compute(self._program, part, "run", self._device.threads(), kind=Done)[1]

    def time(self, inputs: Sequence[np.ndarray], *, number: int, repeat: int) -> list[float]:
        """`repeat` means over `number` runs each, in seconds a run, after 0.3 s of runs that do not count.

        On a device that counts instructions: these a run, times 1e-9, after one that does not count.
        """
        given, runs = [[*inputs, *self._outputs]], number * repeat
        timing, (outputs,) = self._device.compute(
            self._program, given, "time", self._device.threads(), runs, kind=Timing
        )
        if len(timing.nanoseconds) != runs:
            timed = len(timing.nanoseconds)
            raise RemoteError(f"{runs} runs were asked for, and {self._device} timed {timed}.")
        self.timing, self.timed_outputs = timing, outputs
        return [float(mean) * 1e-9 for mean in np.reshape(timing.nanoseconds, (repeat, number)).mean(1)]

    def profile(self, inputs: Sequence[np.ndarray], *, repeat: int) -> list[tuple[str, list[float]]]:
        """Nothing: a library for C is one function, and does not say what its parts took."""
        return []

    def peak_memory_bytes(self) -> int:
        """The most memory that the program had when it was last timed."""
        return self.timing.peak_memory_bytes if self.timing else 0


def _name_of_core(midr: int | None) -> str | None:
    """LLVM's name where it is known."""
    if midr is None:
        return None
    implementer, part = midr >> 24 & 0xFF, midr >> 4 & 0xFFF
    if implementer == _ARM and part in _CORES:
        return _CORES[part]
    return f"a core of implementer {implementer:#x}, part {part:#x}"
