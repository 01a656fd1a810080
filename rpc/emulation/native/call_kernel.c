// Calls one compiled TIR kernel a number of times, on the same tensors:
//   call_kernel CALLS TENSORS TENSORS_AFTERWARDS
// KERNEL, given when this is compiled, is the kernel's symbol. For 32-bit Arm there is no other runtime.
#include "kernel_runtime.h"

int KERNEL(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result);

int main(int argc, char** argv) {
  static DLTensor tensors[kMaxTensors];
  static TVMFFIAny arguments[kMaxTensors];
  forbid_core_dumps();
  if (argc != 4) die("Usage: call_kernel CALLS TENSORS TENSORS_AFTERWARDS");
  FILE* inputs = open_input(argv[2]);
  if (read_count(inputs, 1, "lists of tensors") != 1) die("The input file has no tensors.");
  uint32_t count = read_count(inputs, kMaxTensors, "tensors");
  for (uint32_t i = 0; i < count; i++) {
    read_tensor(inputs, &tensors[i]);
    arguments[i] = (TVMFFIAny){.type_index = kTVMFFIDLTensorPtr, .v_ptr = &tensors[i]};
  }
  for (int calls = atoi(argv[1]); calls > 0; calls--) {
    TVMFFIAny result = {.type_index = kTVMFFINone};
    if (KERNEL(NULL, arguments, (int32_t)count, &result) != 0) die("The kernel failed.");
  }
  FILE* outputs = open_output(argv[3]);
  write_count(outputs, 1);
  write_count(outputs, count);
  for (uint32_t i = 0; i < count; i++) write_tensor(outputs, &tensors[i]);
  flush(outputs);
  return 0;
}
