// Runs a network in C on a microcontroller without an operating system, under QEMU, which gives it files by
// semihosting: the file `inputs` has the inputs of one sample after another, `outputs` gets what is computed, `depth`
// how many bytes of stack a run took at most, as a number of 32 bits. call.h is written for the network: INPUTS(F) and
// OUTPUTS(F) do F(array) for each in turn, CALL() runs it, and STACK_TOP is where the memory ends.
#include <stddef.h>
#include <stdint.h>

#include "call.h"

enum { kOpen = 1, kClose = 2, kWrite = 5, kRead = 6, kExit = 0x18, kExited = 0x20026, kFailed = 0x20023 };
enum { kReadBinary = 1, kWriteBinary = 5, kPainted = 48 << 10, kPaint = 0xA5 };

// C's compilers call these by themselves. The asm keeps them from being made into calls of themselves.
void* memset(void* to, int value, size_t bytes) {
  for (char* at = to; bytes--; at++) {
    *at = (char)value;
    __asm__ volatile("" ::: "memory");
  }
  return to;
}

void* memcpy(void* to, const void* from, size_t bytes) {
  char* at = to;
  for (const char* read = from; bytes--;) {
    *at++ = *read++;
    __asm__ volatile("" ::: "memory");
  }
  return to;
}

static uint32_t host(uint32_t operation, const void* argument) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void* r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static uint32_t open_file(const char* name, uint32_t length, uint32_t mode) {
  const uint32_t arguments[] = {(uint32_t)name, mode, length};
  return host(kOpen, arguments);
}

// Both give the number of bytes that are left to do.
static uint32_t transfer(uint32_t operation, uint32_t file, void* memory, uint32_t bytes) {
  const uint32_t arguments[] = {file, (uint32_t)memory, bytes};
  return host(operation, arguments);
}

static void close_file(uint32_t file) { host(kClose, &file); }

static volatile char* painted_from;

static inline volatile char* stack_pointer(void) {
  volatile char* here;
  __asm__ volatile("mov %0, sp" : "=r"(here));
  return here;
}

static __attribute__((noinline)) void paint(void) {
  volatile char* here = stack_pointer();
  painted_from = here - kPainted;
  for (volatile char* at = painted_from; at < here; at++) *at = (char)kPaint;
}

static __attribute__((noinline)) uint32_t depth_below(volatile char* begin) {
  volatile char* at = painted_from;
  while (*at == (char)kPaint) at++;
  return (uint32_t)(begin - at);
}

static __attribute__((noinline)) int call(void) { return CALL(); }

static __attribute__((noinline, used)) void run_all(void) {
  uint32_t inputs = open_file("inputs", 6, kReadBinary), outputs = open_file("outputs", 7, kWriteBinary);
  uint32_t failed = 0;
  paint();
  for (;;) {
    uint32_t left = 0;
#define READ(tensor) left += transfer(kRead, inputs, tensor, sizeof tensor);
    INPUTS(READ)
    if (left || failed) break;
    failed |= (uint32_t)call();
#define WRITE(tensor) failed |= transfer(kWrite, outputs, tensor, sizeof tensor);
    OUTPUTS(WRITE)
  }
  uint32_t depth = depth_below(stack_pointer()), file = open_file("depth", 5, kWriteBinary);
  failed |= transfer(kWrite, file, &depth, sizeof depth);
  close_file(file);
  close_file(inputs);
  close_file(outputs);
  host(kExit, (void*)(failed ? kFailed : kExited));
  for (;;) {
  }
}

__attribute__((noreturn)) void reset(void) {
  *(volatile uint32_t*)0xE000ED88 |= 0xFu << 20;  // the floating-point unit
  __asm__ volatile("dsb; isb");
  run_all();
  for (;;) {
  }
}

static void fault(void) {
  host(kExit, (void*)kFailed);
  for (;;) {
  }
}

__attribute__((section(".vectors"), used)) static const void* const vectors[] = {
    (void*)STACK_TOP, (void*)reset, (void*)fault, (void*)fault, (void*)fault, (void*)fault, (void*)fault};
