#!/bin/sh
# Installs what the tests need and runs them all. Usage: ./run_tests.sh [PYTEST_OPTIONS]
set -eu
cd "$(dirname "$0")"
BIBENCH_VENV=${BIBENCH_VENV:-.venv}
export BIBENCH_VENV
./install.sh test

# The Arm tests fail, and do not skip, without an emulator, the system libraries of Arm and LLVM's models of its
# cores. One test reads the whole of Fashion-MNIST, one opens a report in a browser, one builds with CMake, and one
# reaches this machine by ssh.
packages=$("$BIBENCH_VENV/bin/python" -c '
from bibench_tvm.tuning import inner_loop
from rpc.emulation import cortex_m, qemu
print(qemu.DEBIAN_PACKAGES, cortex_m.DEBIAN_PACKAGE, inner_loop.DEBIAN_PACKAGES)
print("dataset-fashion-mnist chromium cmake make openssh-client openssh-server")')
missing=
for package in $packages; do
    status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
done
if [ "$missing" ]; then
    line="apt-get install -y --no-install-recommends$missing"
    if [ "$(id -u)" = 0 ]; then
        sudo=
    elif sudo -n true 2>/dev/null; then
        sudo=sudo
    else
        echo "The tests need Debian packages. Type: sudo $line" >&2
        exit 1
    fi
    $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive $line
fi

PATH=$(cd "$BIBENCH_VENV/bin" && pwd):$PATH
ruff check
ruff format --check
mypy
pytest -n 2 "$@"
