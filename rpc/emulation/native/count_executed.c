// A QEMU plugin that counts the executed instructions of an emulated program while it runs:
//   qemu-aarch64 -plugin libcount_executed.so,page=FILE PROGRAM ...
// FILE is made, and its first 64 bits are the count. Whoever maps it sees it grow, the program itself included.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "qemu_plugin.h"

enum { kPage = 4096 };
static uint64_t* count;

#if PLUGIN_VERSION > 1
// Later versions have no adding in place that is not by processor.
static void executed(unsigned cpu, void* data) {
  (void)cpu, (void)data;
  ++*count;
}
#endif

// Each instruction by itself: a block may be left in its middle.
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(block, i);
#if PLUGIN_VERSION > 1
    qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed, QEMU_PLUGIN_CB_NO_REGS, NULL);
#else
    qemu_plugin_register_vcpu_insn_exec_inline(instruction, QEMU_PLUGIN_INLINE_ADD_U64, count, 1);
#endif
  }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc, char** argv) {
  (void)info;
  const char* path = NULL;
  for (int i = 0; i < argc; i++)
    if (strncmp(argv[i], "page=", 5) == 0) path = argv[i] + 5;
  int file = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;
  if (file < 0 || posix_fallocate(file, 0, kPage) != 0) {
    fputs("The plugin needs page=FILE, which it can write.\n", stderr);
    return -1;
  }
  count = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (count == MAP_FAILED) {
    fputs("The plugin's page cannot be mapped.\n", stderr);
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
