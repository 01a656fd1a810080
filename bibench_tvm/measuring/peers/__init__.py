"""What a user would run a layer with instead: TVM's own bit-serial kernels, and ONNX Runtime."""
