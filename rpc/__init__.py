"""Everything remote: boards that are emulated on this machine, and boards on a network.

This package knows TVM and the artifact only. It runs on boards, so it imports neither torch nor onnx.
"""
