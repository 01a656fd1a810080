#!/bin/sh
# Makes the virtual environment .venv, or $BIBENCH_VENV, and installs the project there with the versions that are
# known to work. Usage: ./install.sh [EXTRAS]. Left out, every command works but those of the tests; ./install.sh
# board is for a board, which then gets no PyTorch. Runs again without harm.
set -eu
cd "$(dirname "$0")"
extras=${1-bench,tune}
venv=${BIBENCH_VENV:-.venv}
python=${PYTHON:-python3}

fail() {
    echo "$1" >&2
    exit 1
}

install_debian() { # packages: installs them as root, or says the line to type
    line="apt-get install -y --no-install-recommends $*"
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "This machine lacks $*. Type: sudo $line"
    echo "Installing the Debian packages: $*." >&2
    # shellcheck disable=SC2086
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive $line; } >&2 || fail "apt-get failed. Type: $line"
}

command -v "$python" >/dev/null || install_debian python3 python3-venv
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$python is $("$python" -V), and 3.10 is needed. Set PYTHON to a newer one."
if [ ! -x "$venv/bin/pip" ]; then
    # Debian has venv without ensurepip until python3-venv is installed.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_debian python3-venv
    "$python" -m venv "$venv" || fail "$python could not make the virtual environment $venv."
fi

# PyPI's torch for x86-64 brings gigabytes of CUDA, its makers' own index does not. Asked once and briefly, since pip
# would try again and again where that index cannot be reached.
index=https://download.pytorch.org/whl/cpu
if "$venv/bin/python" -c "import urllib.request as r; r.urlopen('$index/torch/', timeout=5)" 2>/dev/null; then
    set -- --extra-index-url "$index"
else
    set --
fi
"$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@" \
    --constraint constraints.txt --editable ".${extras:+[$extras]}" ||
    fail "pip could not install the project; its own words are above."
echo "Installed. Type: . $venv/bin/activate" >&2
