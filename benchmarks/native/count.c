// A QEMU plugin that counts how often each instruction of an emulated program is executed:
//   qemu-aarch64 -plugin libcount.so,out=FILE PROGRAM ...
// At the end FILE has a line for each instruction that was executed, by address: its address, its code and its
// count.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu_plugin.h"

// An open hash table of instructions. Blocks are translated again at will, so an address can come more than once.
typedef struct {
  uint64_t address, count;
  uint32_t code;
} Instruction;

enum { kSlots = 1 << 20 };
static Instruction* table[kSlots];
static const char* out_path;

static Instruction* instruction_at(uint64_t address, uint32_t code) {
  uint64_t slot = (address >> 2) * 0x9E3779B97F4A7C15u >> 44;
  while (table[slot] && (table[slot]->address != address || table[slot]->code != code))
    slot = (slot + 1) % kSlots;
  if (!table[slot]) {
    Instruction* made = calloc(1, sizeof *made);
    if (!made) abort();
    made->address = address;
    made->code = code;
    table[slot] = made;
  }
  return table[slot];
}

static void executed(unsigned cpu, void* instruction) {
  (void)cpu;
  ((Instruction*)instruction)->count++;
}

// Each instruction by itself: a block may be left in its middle.
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(instruction), sizeof code);
    Instruction* counted = instruction_at(qemu_plugin_insn_vaddr(instruction), code);
    qemu_plugin_register_vcpu_insn_exec_cb(instruction, executed, QEMU_PLUGIN_CB_NO_REGS, counted);
  }
}

static int by_address(const void* left, const void* right) {
  uint64_t a = (*(Instruction* const*)left)->address, b = (*(Instruction* const*)right)->address;
  return a < b ? -1 : a > b;
}

static void ended(qemu_plugin_id_t id, void* data) {
  (void)id, (void)data;
  size_t used = 0;
  for (size_t i = 0; i < kSlots; i++)
    if (table[i]) table[used++] = table[i];
  qsort(table, used, sizeof *table, by_address);
  FILE* file = fopen(out_path, "w");
  if (!file) return;  // the reader finds no file and says so
  for (size_t i = 0; i < used; i++)
    fprintf(file, "%" PRIx64 " %08" PRIx32 " %" PRIu64 "\n", table[i]->address, table[i]->code, table[i]->count);
  fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int count, char** arguments) {
  (void)info;
  for (int i = 0; i < count; i++)
    if (strncmp(arguments[i], "out=", 4) == 0) out_path = strdup(arguments[i] + 4);
  if (!out_path) {
    fputs("The plugin needs out=FILE.\n", stderr);
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
