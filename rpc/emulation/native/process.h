// What every program under QEMU does: end with a sentence, and leave no memory behind on the disk.
#ifndef BIBENCH_PROCESS_H
#define BIBENCH_PROCESS_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char* sentence, ...) {
  va_list values;
  va_start(values, sentence);
  vfprintf(stderr, sentence, values);
  fputc('\n', stderr);
  _exit(1);  // no destructors: the runtime may be in any state
}

// QEMU would write the dump of a crash into the current folder, gigabytes of it.
static void forbid_core_dumps(void) {
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
}

#endif
