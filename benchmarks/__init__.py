"""How fast the compiled networks are: beside other libraries, beside the machine's limit, and on Arm.

python -m benchmarks.peers     against ONNX Runtime, OpenVINO, PyTorch and TVM's own kernels, in one run
python -m benchmarks.limit     what this machine's registers can do
python -m benchmarks.arm       executed instructions and modelled cycles on Arm, without a board
"""
