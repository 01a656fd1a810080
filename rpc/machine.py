"""What the machine under a board is, and in which state: read from Linux, where it says so."""

import contextlib
import ctypes
import functools
import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi

from rpc.machine_name import this_machine

# The kernel's names of what a compiled kernel may use on purpose, and LLVM's names, which an artifact has.
LLVM_FEATURES = {
    "asimd": "neon",
    "neon": "neon",
    "vfpv4": "vfp4",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512vl": "avx512vl",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
}
_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")


def describe() -> dict[str, Any]:
    """What a board tells the tracker of itself; fields as in `rpc.session.BoardInfo`."""
    return {
        "emulated": False,
        "cpu": _cpu_name(),
        "machine": this_machine(),
        "cores": processors(),
        "features": _features(),
        "governor": _read(_CPU / "scaling_governor"),
        "memory_bytes": memory_bytes(),
        "tvm": tvm.__version__,
    }


def conditions() -> dict[str, Any]:
    """What a measurement depends on, now; None where the machine does not say.

    `mhz` of core 0, `temperature_c` of the processor, `load_average` of a minute; `throttled` is the
    Raspberry Pi's word in hexadecimal: bit 0 is low voltage and 1 to 3 are a slowed clock, now, and 16 to 19
    are the same at some time since it was started.
    """
    khz = _read(_CPU / "scaling_cur_freq")
    temperature = _read(Path("/sys/class/thermal/thermal_zone0/temp"))
    return {
        "governor": _read(_CPU / "scaling_governor"),
        "mhz": int(khz) / 1000 if khz and khz.isdigit() else None,
        "temperature_c": int(temperature) / 1000 if temperature and temperature.isdigit() else None,
        "throttled": _read(_THROTTLED),
        "load_average": _load_average(),
        "memory_available_bytes": _available_memory(),
        "disk_free_bytes": shutil.disk_usage(".").free,
    }


def peak_memory(reset: bool) -> int:
    """The most memory in bytes that this process has had at once, since it was last reset."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # Since the process began, in KiB on Linux: Android may hide what /proc says.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def processors() -> int:
    """How many this process may run on. Android's Python does not tell, and then it is how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Of the whole machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _available_memory() -> int | None:
    for line in (_read(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def settle_threads() -> None:
    """Says how many threads TVM takes where nobody says: half of the processors on x86, as if each core had
    two, and all elsewhere. Unsaid it would be as many, but each kernel would wake a pool even for one: 6 us.
    """
    if not {"TVM_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys():
        x86 = this_machine() in ("x86_64", "i686")
        os.environ["TVM_NUM_THREADS"] = str(max(1, processors() // 2) if x86 else processors())


def fast_cores() -> int:
    """How many cores this process may run on that are about as fast as the fastest, where Linux tells them
    apart; else how many processors. Two threads of one core count once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(processors())
    clocks, cores = {}, {}
    for cpu in allowed:
        folder = _CPU.parents[1] / f"cpu{cpu}"
        clock = _read(folder / "cpufreq" / "cpuinfo_max_freq")
        clocks[cpu] = int(clock) if clock and clock.isdigit() else 0
        cores[cpu] = _read(folder / "topology" / "thread_siblings_list") or str(cpu)
    # The little cores of a phone run at three quarters of the clock of the big ones, if not less; the best of
    # these are up to a seventh faster than the others.
    return len({cores[cpu] for cpu in allowed if clocks[cpu] >= 0.8 * max(clocks.values())})


def limit_threads(count: int) -> None:
    """What TVM runs in the thread that calls this, it runs on at most so many; 0: as the environment says."""
    # In C++ alone, of the one version of TVM that artifacts run with.
    _runtime()._ZN3tvm7runtime9threading17SetMaxConcurrencyEi(count)


@functools.cache
def _runtime() -> ctypes.PyDLL:
    from tvm.libinfo import find_libtvm_runtime

    return ctypes.PyDLL(find_libtvm_runtime())


def make_pool(count: int) -> int:
    """Gives the thread that calls this a pool of so many threads, on the fastest cores, whatever the
    environment says; how many there are then."""
    in_pool = tvm_ffi.get_global_func("runtime.NumThreads")
    limit_threads(max(count, processors()))
    in_pool()  # makes it, of so many
    fastest_cores = 1
    tvm_ffi.get_global_func("runtime.config_threadpool")(fastest_cores, count)  # takes the limit off
    limit_threads(count)
    return int(in_pool())


def use_threads(count: int) -> None:
    """Runs the networks of this process on so many threads; to be said before the first run."""
    # Without it TVM takes half of the processors of an x86 machine, as if each core had two.
    os.environ["TVM_NUM_THREADS"] = str(processors())
    fastest_cores = 1
    tvm_ffi.get_global_func("runtime.config_threadpool")(fastest_cores, count)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip().strip("\0") or None
    except OSError:
        return None


def _cpu_name() -> str:
    """LLVM's name of the processor, as in --target's own table, else the kernel's."""
    # In a process of its own, since it takes TVM's compiler, which a board needs for nothing else.
    code = "from rpc import lean; lean.import_tvm(compiler=True); from tvm.target import codegen; "
    code += "print(codegen.llvm_get_system_cpu())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return done.stdout.strip() or platform.processor() or "unknown"


def _features() -> list[str]:
    words = (_read(Path("/proc/cpuinfo")) or "").split()
    return sorted({llvm for name, llvm in LLVM_FEATURES.items() if name in words})
