// Runs a network that is a library for C, on a processor for which TVM has no runtime:
//   run_standalone INPUTS OUTPUTS
// INPUTS has one list of tensors per sample, inputs and then outputs of any content; OUTPUTS gets the outputs of each
// sample as soon as they are computed. CALL(TENSORS, WORKSPACE), OUTPUT_COUNT and WORKSPACE_BYTES are in call.h, which
// is written for the network. Every buffer ends where memory that may not be touched begins.
#include <sys/mman.h>
#include <unistd.h>

#include "call.h"
#include "tensor_file.h"

// `bytes` at a multiple of `alignment`, as near as that allows to a page that ends the program.
static void* guarded(uint64_t bytes, uint64_t alignment) {
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
  char* memory = mmap(NULL, (size_t)(room + 2 * page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) die("There is no memory for %llu bytes.", (unsigned long long)bytes);
  if (mprotect(memory, (size_t)page, PROT_NONE) || mprotect(memory + page + room, (size_t)page, PROT_NONE))
    die("Memory cannot be protected.");
  return memory + page + (room - bytes) / alignment * alignment;
}

int main(int argc, char** argv) {
  static DLTensor tensors[kMaxTensors];
  static void* places[kMaxTensors];
  forbid_core_dumps();
  if (argc != 3) die("Usage: run_standalone INPUTS OUTPUTS");
  FILE* inputs = open_input(argv[1]);
  FILE* outputs = open_output(argv[2]);
  uint32_t samples = read_count(inputs, UINT32_MAX - 1, "samples");
  write_count(outputs, samples);
  flush(outputs);
  void* workspace = guarded(WORKSPACE_BYTES, 64);
  for (uint32_t sample = 0; sample < samples; sample++) {
    uint32_t count = read_count(inputs, kMaxTensors, "tensors in a sample");
    if (count < OUTPUT_COUNT) die("A sample has no place for the outputs.");
    for (uint32_t i = 0; i < count; i++) {
      read_tensor(inputs, &tensors[i]);
      uint64_t bytes = bytes_of(&tensors[i]);
      if (!sample) places[i] = guarded(bytes, (tensors[i].dtype.bits + 7u) / 8u);
      memcpy(places[i], tensors[i].data, (size_t)bytes);
      free(tensors[i].data);
      tensors[i].data = places[i];
    }
    if (CALL(places, workspace) != 0) die("The network failed.");
    write_count(outputs, OUTPUT_COUNT);
    for (uint32_t i = count - OUTPUT_COUNT; i < count; i++) write_tensor(outputs, &tensors[i]);
    flush(outputs);
    for (uint32_t i = 0; i < count; i++) free(tensors[i].shape);
  }
  return 0;
}
