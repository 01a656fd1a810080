// Calls one compiled TIR kernel a number of times, on the same tensors:
//   call_kernel CALLS TENSORS TENSORS_AFTERWARDS
// KERNEL, given when this is compiled, is the kernel's symbol. The few functions of TVM's runtime that kernels call are
// here in their simplest form: memory from malloc, and parallel loops one task after the other. For 32-bit Arm there is
// no other runtime; where instructions are counted, they are the kernel's.
#include <tvm/ffi/c_api.h>

#include "tensor_file.h"

int KERNEL(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result);

// From <tvm/runtime/c_backend_api.h>, which is for C++ alone.
typedef struct {
  void* sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;
typedef int (*FTVMParallelLambda)(int task, TVMParallelGroupEnv* group, void* closure);

static void* alloc_workspace(int device, int id, uint64_t bytes, int type_code, int type_bits) {
  (void)device, (void)id, (void)type_code, (void)type_bits;
  return allocate(bytes);
}

static int free_workspace(int device, int id, void* memory) {
  (void)device, (void)id;
  free(memory);
  return 0;
}

static int parallel_launch(FTVMParallelLambda task, void* closure, int tasks) {
  TVMParallelGroupEnv group = {NULL, tasks > 0 ? tasks : 1};
  for (int i = 0; i < group.num_task; i++)
    if (task(i, &group, closure) != 0) return -1;
  return 0;
}

// Kernels reach the runtime through these pointers, weak in their objects, which TVM fills at load time.
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = alloc_workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = free_workspace;
int (*__TVMBackendParallelLaunch)(FTVMParallelLambda, void*, int) = parallel_launch;

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "The kernel refused its arguments: %s: ", kind);
  for (int32_t i = 0; i < count; i++)
    if (parts[i]) fputs(parts[i], stderr);
  die("%s", "");
}

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
  TVMFFIErrorSetRaisedFromCStrParts(kind, &message, 1);
}

// Named by the unwinding tables of LLVM's objects for 32-bit Arm; nothing is ever thrown here.
__attribute__((weak)) void __aeabi_unwind_cpp_pr0(void) {}

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
