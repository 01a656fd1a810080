// Runs a compiled Relax network on an Arm processor, emulated or real, without Python:
//   run_model MODEL.so INPUTS OUTPUTS
// INPUTS has one list of tensors per sample; OUTPUTS gets one list per sample, tuples flattened in order, as
// soon as it is computed. Plain C over the tvm-ffi C API: zig builds that in seconds, and C++ in a minute.
#include "ffi.h"
#include "tensor_file.h"

enum { kPooledAllocator = 2, kMaxDepth = 8 };

static TVMFFIAny call(TVMFFIObjectHandle function, TVMFFIAny* arguments, int count, const char* doing) {
  TVMFFIAny result = {.type_index = kTVMFFINone};
  check(TVMFFIFunctionCall(function, arguments, count, &result), doing);
  return result;
}

static TVMFFIObjectHandle method(TVMFFIAny module, const char* name) {
  TVMFFIAny arguments[] = {module, text(name), {.type_index = kTVMFFIBool, .v_int64 = 1}};
  TVMFFIAny found = call(global_function("ffi.ModuleGetFunction"), arguments, 3, name);
  if (found.type_index != kTVMFFIFunction)
    die("The model has no function %s: is it a Relax executable?", name);
  return found.v_obj;
}

static void free_input(struct DLManagedTensorVersioned* managed) {
  free(managed->dl_tensor.shape);
  free(managed->dl_tensor.data);
  free(managed);
}

static TVMFFIAny read_input(FILE* file) {
  DLManagedTensorVersioned* managed = allocate(sizeof *managed);
  TVMFFIObjectHandle tensor;
  memset(managed, 0, sizeof *managed);
  managed->version = (DLPackVersion){DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  managed->deleter = free_input;
  read_tensor(file, &managed->dl_tensor);
  check(TVMFFITensorFromDLPackVersioned(managed, kAlignment, 1, &tensor), "Passing an input");
  return (TVMFFIAny){.type_index = kTVMFFITensor, .v_obj = tensor};
}

// Counts the tensors in a tensor or a nested tuple and, given a file, writes them.
static uint32_t write_output(FILE* file, const TVMFFIAny* value, int depth) {
  if (value->type_index == kTVMFFITensor) {
    if (file) write_tensor(file, body(value));
    return 1;
  }
  if (value->type_index != kTVMFFIArray || depth == kMaxDepth)
    die("The network returned type %d, neither a tensor nor a tuple of tensors.", value->type_index);
  const TVMFFISeqCell* tuple = body(value);
  uint32_t count = 0;
  for (int64_t i = 0; i < tuple->size; i++)
    count += write_output(file, (TVMFFIAny*)tuple->data + i, depth + 1);
  return count;
}

int main(int argc, char** argv) {
  forbid_core_dumps();
  if (argc != 4) die("Usage: run_model MODEL.so INPUTS OUTPUTS");

  TVMFFIAny path = text(argv[1]);
  TVMFFIAny library = call(global_function("ffi.ModuleLoadFromFile"), &path, 1, "Loading the model");
  TVMFFIAny machine = call(method(library, "vm_load_executable"), NULL, 0, "Loading the executable");
  TVMFFIAny device[] = {integer(kDLCPU), integer(0), integer(kPooledAllocator)};
  call(method(machine, "vm_initialization"), device, 3, "Starting the virtual machine");
  TVMFFIObjectHandle network = method(machine, "main");

  FILE* inputs = open_input(argv[2]);
  FILE* outputs = open_output(argv[3]);
  uint32_t samples = read_count(inputs, UINT32_MAX - 1, "samples");
  write_count(outputs, samples);
  flush(outputs);
  TVMFFIAny arguments[kMaxTensors];
  for (uint32_t sample = 0; sample < samples; sample++) {
    uint32_t count = read_count(inputs, kMaxTensors, "tensors in a sample");
    for (uint32_t i = 0; i < count; i++) arguments[i] = read_input(inputs);
    TVMFFIAny result = call(network, arguments, (int)count, "Running the network");
    write_count(outputs, write_output(NULL, &result, 0));
    write_output(outputs, &result, 0);
    flush(outputs);
    TVMFFIObjectDecRef(result.v_obj);
    for (uint32_t i = 0; i < count; i++) TVMFFIObjectDecRef(arguments[i].v_obj);
  }
  // The runtime's threads and globals have nothing left to say.
  _exit(0);
}
