#!/bin/sh
# Makes the virtual environment .venv, or $BIBENCH_VENV, and installs the project there with the versions that are
# known to work. Usage: ./install.sh [EXTRAS | data]. Left out, every command works but those of the tests;
# ./install.sh board is for a board, which then gets no PyTorch; ./install.sh data installs no package of Python, but
# brings the data that can be had without an account. Runs again without harm.
set -eu
cd "$(dirname "$0")"
extras=${1-bench,report,train,tune}
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

fetch_data() { # Fashion-MNIST, and what the stand-ins for text and speech are made of; what is there stays
    data=${BIBENCH_DATA:-$HOME/.cache/bibench_tvm/data}
    "$venv/bin/python" -c 'from importlib.util import find_spec as f; f("tokenizers") and f("torchmetrics") or exit(1)' \
        2>/dev/null ||
        fail "The data are made with what training needs, and $venv lacks it. Type: ./install.sh"
    packages=
    [ -d /usr/share/datasets/fashion-mnist ] || packages=dataset-fashion-mnist
    command -v espeak-ng >/dev/null || packages="$packages espeak-ng"
    # shellcheck disable=SC2086
    [ -z "$packages" ] || install_debian $packages
    if [ ! -d "$data/standin_text" ]; then
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' EXIT
        # The sentences are in no wheel. Who fetches a source package runs its setup.py: hence the digest.
        echo "vaderSentiment==3.3.2 \
            --hash=sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9" >"$folder/requirements.txt"
        "$venv/bin/python" -m pip download -qq --disable-pip-version-check --no-deps --no-binary vaderSentiment \
            --dest "$folder" --requirement "$folder/requirements.txt" ||
            fail "pip could not fetch vaderSentiment 3.3.2; its own words are above."
        "$venv/bin/python" -m trainers.fetch text "$folder"/*.tar.gz
    fi
    [ -d "$data/standin_speech" ] || "$venv/bin/python" -m trainers.fetch speech
    echo "The data are in $data and /usr/share/datasets." >&2
}

if [ "$extras" = data ]; then
    fetch_data
    exit
fi
command -v "$python" >/dev/null || install_debian python3 python3-venv
# What pip would say in many words, of packages that nobody here asked for by name.
"$python" - "$python" <<'END' || exit 1
import os, platform, sys

name, version = sys.argv[1], platform.python_version()
if sys.version_info < (3, 11):
    sys.exit(f"{name} is Python {version}, and 3.11 is needed. Set PYTHON to a newer one.")
if sys.maxsize < 2**32:
    sys.exit(f"{name} is a 32-bit Python, and TVM is there for 64-bit ones only. Install a 64-bit system, or set "
             "PYTHON to a 64-bit one.")
if sys.platform == "linux":
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        library = ""
    numbers = [int(n) for n in library.removeprefix("glibc ").split(".")[:2] if n.isdigit()]
    if numbers < [2, 28]:
        sys.exit(f"This system has {library or 'a C library that is not glibc'}, and TVM needs glibc 2.28 or newer. "
                 "Install a newer system: Debian has it since version 10, Ubuntu since 18.10.")
END
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
