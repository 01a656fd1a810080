// The few functions of TVM's runtime that kernels call, in their simplest form: memory from malloc, and parallel loops
// one task after the other. Where instructions are counted, they are the kernel's.
#ifndef BIBENCH_KERNEL_RUNTIME_H
#define BIBENCH_KERNEL_RUNTIME_H

#include <tvm/ffi/c_api.h>

#include "tensor_file.h"

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

#endif
