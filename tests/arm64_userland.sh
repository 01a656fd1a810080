#!/bin/sh
# A fresh 64-bit Arm Debian under QEMU, and in it what docs/boards.md says of a Raspberry Pi: install, run, bench and
# board; and from this machine run, bench and tune on that board. Usage: tests/arm64_userland.sh [RELEASE [FOLDER]],
# as root, for debootstrap. The release is bookworm (Python 3.11) or trixie (3.13). FOLDER keeps the Debian for the next
# time; the installation is made anew each time. Takes about ten minutes and 1 GB of disk, and needs debootstrap, proot
# and qemu-user-static. PYTHON is this machine's Python with the project, MIRROR another mirror of Debian. Nothing of
# this machine is changed, and nothing is left running.
set -eu
folder=$(realpath -m "${2:-${TMPDIR:-/tmp}/bibench_userland}")
cd "$(dirname "$0")/.."
release=${1:-bookworm}
python=${PYTHON:-.venv/bin/python}
root=$folder/$release
export PYTHONPATH="$PWD" PYTHONDONTWRITEBYTECODE=1

fail() {
    echo "$1" >&2
    exit 1
}

step() { echo "== $(date +%T) $1"; }

for program in debootstrap proot qemu-aarch64-static; do
    command -v "$program" >/dev/null ||
        fail "$program is missing. Type: sudo apt-get install -y debootstrap proot qemu-user-static"
done
[ "$(id -u)" = 0 ] || fail "debootstrap needs root. Type: sudo PYTHON=$python tests/arm64_userland.sh $release $folder"
"$python" -c 'import tvm' || fail "$python has no TVM. Type: ./install.sh, or set PYTHON."

if [ ! -e "$root.whole" ]; then
    step "Debian $release"
    rm -rf "$root"
    mkdir -p "$folder"
    debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,python3-venv,ca-certificates \
        "$release" "$root" "${MIRROR:-http://deb.debian.org/debian}" >"$root.log" || fail "See $root.log."
    # Unpacked and not configured, which is enough for Python and takes no emulation.
    for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    (cd "$root" && rm -rf proc dev sys var/cache/apt/archives/*.deb && mkdir -p proc dev sys home/pi)
    touch "$root.whole"
fi
# What the kernel of a Raspberry Pi 4 would say; QEMU shows this machine's.
printf 'processor : 0\nFeatures : fp asimd evtstrm crc32 cpuid\nCPU implementer : 0x41\nCPU part : 0xd08\n' \
    >"$folder/cpuinfo"
# How this machine reaches a package index holds there too.
network=
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_CERT SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE \
    http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    value=$(printenv "$name") && network="$network $name=$value"
done
# proot 5.1, as Debian 12 has it, looks for the file of a faccessat2 on this machine. Refused (439, ENOSYS) that
# call, the C library takes another.
refuse='
import ctypes, os, struct, sys
steps = (0x20, 0, 0, 0), (0x15, 0, 1, 439), (6, 0, 0, 0x50026), (6, 0, 0, 0x7FFF0000)
code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
no_new_privileges, filter = (38, 1, 0, 0, 0), (22, 2, struct.pack("@HP", len(steps), ctypes.addressof(code)))
if ctypes.CDLL(None).prctl(*no_new_privileges) or ctypes.CDLL(None).prctl(*filter):
    sys.exit("This kernel takes no filter of system calls.")
os.execvp(sys.argv[1], sys.argv[1:])'
enter() { # command: becomes it, there; to be called with &
    # shellcheck disable=SC2086
    exec "$python" -c "$refuse" proot -v -1 -q "qemu-aarch64-static -cpu cortex-a72" -r "$root" -b /proc -b /dev \
        -b /sys -b "$folder/cpuinfo:/proc/cpuinfo" -b /etc/resolv.conf -b /etc/hosts -b /etc/ssl -w /home/pi \
        /usr/bin/env -i PATH=/usr/bin:/bin HOME=/home/pi LC_ALL=C.UTF-8 $network /bin/sh -euc "$1"
}
inside() { # command: runs it there
    enter "$1" &
    guest=$!
    status=0
    wait "$guest" || status=$?
    guest=
    return "$status"
}

scratch=$(mktemp -d)
guest=
board=
servers=
end() {
    # proot listens to SIGQUIT alone, and ends with itself what runs in it.
    for process in $guest $board; do kill -QUIT "$process" 2>/dev/null || :; done
    for process in $servers; do kill "$process" 2>/dev/null || :; done
    wait
    rm -rf "$scratch"
}
trap end EXIT
trap 'exit 1' HUP INT TERM

await() { # seconds, command: until it succeeds
    limit=$1
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$limit" -gt 0 ] || fail "In vain: $*"
        limit=$((limit - 1))
        sleep 1
    done
}

step "./install.sh board, there"
home=$root/home/pi
rm -rf "$home/bibench_tvm" "$home/build" "$home"/*.npy "$root"/tmp/*
mkdir -p "$home/bibench_tvm"
tar -c --exclude './.*' . | tar -xC "$home/bibench_tvm"
inside 'uname -m && python3 -V'
install=$("$python" -m bibench_tvm.board --print-install --without-ssh 2>/dev/null | tail -1)
echo "$install"
inside "$install"
inside 'cd bibench_tvm && du -sm .venv && .venv/bin/pip --disable-pip-version-check list'
there='. bibench_tvm/.venv/bin/activate &&'

step "an artifact from here"
"$python" -m bibench_tvm.compile --target rpi4b --out "$scratch/build" --json >"$scratch/json"
"$python" -c "import numpy, sys; numpy.save(sys.argv[1], numpy.random.default_rng(0).standard_normal((3, 1, 32, 32), 'f'))" \
    "$scratch/x.npy"
cp -r "$scratch/build" "$scratch/x.npy" "$home"

step "run, there"
inside "$there bibench run build --input x.npy --output y.npy"
step "bench, there"
inside "$there bibench bench build --runs 2"

step "what a board lacks, in sentences"
for command in "compile --target rpi4b" "tune --out tuned" "train --out out" "board --tracker 127.0.0.1:9 --key k --emulate" \
    "bench build --against onnxruntime" "run build --input x.npy --output z.npy --threads 1000" \
    "run nothing --input x.npy --output z.npy"; do
    inside "$there bibench $command" >"$scratch/said" 2>&1 || :
    echo "bibench $command: exit $status. $(cat "$scratch/said")"
    case $status in 1 | 2) ;; *) fail "Not refused." ;; esac
    ! grep -E 'Traceback|fault of the program' "$scratch/said" >/dev/null || fail "Not in a sentence."
done

step "a board of it, and an emulated one"
"$python" -m bibench_tvm.tracker --port 0 --json >"$scratch/tracker" &
servers="$servers $!"
await 60 grep -q '}' "$scratch/tracker"
port=$("$python" -c 'import json, sys; print(json.load(sys.stdin)["port"])' <"$scratch/tracker")
tracker="--tracker 127.0.0.1:$port"
enter "$there exec bibench board $tracker --key pi" &
board=$!
# shellcheck disable=SC2086
"$python" -m bibench_tvm.board $tracker --key emulated --emulate --cpu cortex-a72 &
servers="$servers $!"
listed() { "$python" -m bibench_tvm.targets --tracker "127.0.0.1:$port" | grep "$1"; }
await 60 listed '^pi'
await 60 listed '^emulated'
listed '^pi'

for key in pi emulated; do
    step "run from here on $key"
    # shellcheck disable=SC2086
    "$python" -m bibench_tvm.run "$scratch/build" --input "$scratch/x.npy" --output "$scratch/$key.npy" --board $key \
        $tracker
    cmp "$scratch/$key.npy" "$home/y.npy"
done
echo "The same bits, three times."
step "bench from here on pi"
# shellcheck disable=SC2086
"$python" -m bibench_tvm.bench "$scratch/build" --runs 2 --board pi $tracker
step "tune from here on pi"
# shellcheck disable=SC2086
"$python" -m bibench_tvm.tune --target rpi4b --trials 4 --out "$scratch/tuned" --board pi $tracker
step "All of it works."
