// Reads and writes the files of tensors that rpc/emulation/tensor_file.py describes. Every length is checked: a wrong
// file ends the program with a sentence on standard error and exit status 1.
#ifndef BIBENCH_TENSOR_FILE_H
#define BIBENCH_TENSOR_FILE_H

#include <dlpack/dlpack.h>
#include <sys/stat.h>

#include "process.h"

enum { kMagic = 0x31544242, kMaxDimensions = 16, kMaxTensors = 4096, kAlignment = 64 };

static void* allocate(uint64_t bytes) {
  void* memory = NULL;
  if (bytes > SIZE_MAX / 2 || posix_memalign(&memory, kAlignment, bytes ? (size_t)bytes : 1) != 0)
    die("There is no memory for %llu bytes.", (unsigned long long)bytes);
  return memory;
}

static void read_bytes(FILE* file, void* to, uint64_t bytes) {
  if (bytes && fread(to, 1, (size_t)bytes, file) != bytes)
    die("The input file ends in the middle of a tensor.");
}

static uint32_t read_count(FILE* file, uint32_t limit, const char* what) {
  uint32_t count;
  read_bytes(file, &count, sizeof count);
  if (count > limit) die("The input file says that it has %u %s, more than %u.", count, what, limit);
  return count;
}

static void write_bytes(FILE* file, const void* from, uint64_t bytes) {
  if (bytes && fwrite(from, 1, (size_t)bytes, file) != bytes)
    die("The output file cannot be written: is the disk full?");
}

static void write_count(FILE* file, uint32_t count) { write_bytes(file, &count, sizeof count); }

static uint64_t bytes_of(const DLTensor* tensor) {
  uint64_t bytes = (uint64_t)tensor->dtype.lanes * ((tensor->dtype.bits + 7u) / 8u);
  for (int i = 0; i < tensor->ndim; i++)
    if (tensor->shape[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)tensor->shape[i], &bytes))
      die("A tensor has the impossible size %lld in dimension %d.", (long long)tensor->shape[i], i);
  return bytes;
}

// Fills in a dense tensor. Its data, and its shape with the strides behind it, are the caller's to free.
static void read_tensor(FILE* file, DLTensor* tensor) {
  memset(tensor, 0, sizeof *tensor);
  tensor->device.device_type = kDLCPU;
  read_bytes(file, &tensor->dtype, sizeof tensor->dtype);
  tensor->ndim = (int32_t)read_count(file, kMaxDimensions, "dimensions in a tensor");
  tensor->shape = allocate(sizeof(int64_t) * 2 * kMaxDimensions);
  tensor->strides = tensor->shape + kMaxDimensions;
  read_bytes(file, tensor->shape, sizeof(int64_t) * (uint64_t)tensor->ndim);
  uint64_t bytes, expected = bytes_of(tensor);
  read_bytes(file, &bytes, sizeof bytes);
  struct stat status;
  if (bytes != expected || fstat(fileno(file), &status) != 0 || bytes > (uint64_t)status.st_size)
    die("The input file says that a tensor of %llu bytes has %llu.", (unsigned long long)expected,
        (unsigned long long)bytes);
  int64_t stride = 1;
  for (int i = tensor->ndim - 1; i >= 0; stride *= tensor->shape[i--]) tensor->strides[i] = stride;
  tensor->data = allocate(bytes);
  read_bytes(file, tensor->data, bytes);
}

static void write_tensor(FILE* file, const DLTensor* tensor) {
  int64_t stride = 1;
  for (int i = tensor->ndim - 1; tensor->strides && i >= 0; stride *= tensor->shape[i--])
    if (tensor->shape[i] != 1 && tensor->strides[i] != stride) die("An output tensor is not stored densely.");
  uint64_t bytes = bytes_of(tensor);
  write_bytes(file, &tensor->dtype, sizeof tensor->dtype);
  write_count(file, (uint32_t)tensor->ndim);
  write_bytes(file, tensor->shape, sizeof(int64_t) * (uint64_t)tensor->ndim);
  write_bytes(file, &bytes, sizeof bytes);
  write_bytes(file, (const char*)tensor->data + tensor->byte_offset, bytes);
}

static FILE* open_input(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file) die("The input file %s cannot be opened.", path);
  if (read_count(file, UINT32_MAX, "signs") != kMagic) die("%s is not a file of tensors.", path);
  return file;
}

static FILE* open_output(const char* path) {
  FILE* file = fopen(path, "wb");
  if (!file) die("The output file %s cannot be opened.", path);
  write_count(file, kMagic);
  return file;
}

// Progress: what came before a crash or a hang is in the file.
static void flush(FILE* file) {
  if (fflush(file) != 0) die("The output file cannot be written: is the disk full?");
}

#endif
