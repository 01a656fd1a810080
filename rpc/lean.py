"""TVM with as little of it as a board needs: 80 MB. All of it takes 220, and 440 where PyTorch is installed.

For processes of our own that offer or use a board. A library does not decide this for those who use it.
"""

import os
import sys
from typing import Any

_RUNTIME_ONLY = "TVM_USE_RUNTIME_LIB"


def import_tvm(*, compiler: bool = False) -> None:
    """Imports TVM without PyTorch, which tvm_ffi would import wherever it is installed, and without TVM's
    compiler unless it is asked for. Changes nothing where one of them is imported already.
    """
    if {"torch", "tvm_ffi"} & sys.modules.keys():
        return
    before = os.environ.get(_RUNTIME_ONLY)
    modules: dict[str, Any] = sys.modules
    modules["torch"] = None  # so that an import of it fails
    if not compiler:
        os.environ[_RUNTIME_ONLY] = "1"
    try:
        import tvm  # noqa: F401
    finally:
        del modules["torch"]
        os.environ.pop(_RUNTIME_ONLY, None)
        if before is not None:
            os.environ[_RUNTIME_ONLY] = before
