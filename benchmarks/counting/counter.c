/* A plugin of qemu-user that counts the instructions of an emulated program on AArch64.
 *
 *   qemu-aarch64 -plugin libcounter.so,out=FILE PROGRAM
 *
 * The program says what is to be counted by instructions that do nothing else:
 *
 *   hint #96            a section begins; the instruction behind it is the first that counts
 *   hint #97            it ends; the instruction before it is the last
 *   mrs x, cntvct_el0   a tick: so many instructions of the section were executed before this one
 *
 * FILE holds a line for each thing, in the order of execution:
 *
 *   block ADDRESS INSTRUCTIONS EXECUTIONS   a block of code that ran since the last tick or mark
 *   tick COUNT
 *   section COUNT
 *   program COUNT                           at the end: everything, from the first instruction
 *   threads COUNT                           counts are right where this is 1
 *
 * A block is what QEMU translates at a time, up to a branch or the end of a page. It is counted
 * when it is entered, so in "block" lines that with a mark or a tick in it may be one execution
 * off; all other counts are exact, and the same every time.
 *
 * Declared here is what is used of QEMU's interface for plugins, version 1 (QEMU 4.2 to 8.2;
 * include/qemu/qemu-plugin.h, docs/devel/tcg-plugins.rst): distributions do not ship the header.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
  const char* target_name;
  struct {
    int min, cur;
  } version;
} qemu_info_t; /* its first members */
enum { NO_REGISTERS = 0 };
enum { ADD_U64 = 0 };

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned));
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                           void (*)(qemu_plugin_id_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, int, void*, uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn*, void (*)(unsigned, void*),
                                            int, void*);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void*), void*);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn*);

EXPORT int qemu_plugin_version = 1;

/* Instruction words; Arm ARM, C6.2: HINT, MRS. */
#define HINT(number) (0xd503201fu | (number) << 5)
#define BEGIN HINT(96u)
#define END HINT(97u)
#define READ_CLOCK 0xd53be040u /* and a register in the lowest five bits */

struct block {
  uint64_t executions;
  uint64_t before; /* executions until the last tick or mark */
  uint64_t address;
  uint64_t length;
  struct block* next;
};

static struct block* blocks;
static uint64_t executed; /* instructions of all blocks that were entered */
static uint64_t begun;    /* of these, before the section */
static unsigned threads;
static FILE* out;

/* Of a mark the callback gets how many instructions of its block are still to come, itself among
 * them: the block was counted when it was entered. */
static uint64_t reached(void* left) { return executed - (uintptr_t)left; }

static void write_blocks(void) {
  for (struct block* each = blocks; each; each = each->next) {
    if (begun && each->executions > each->before)
      fprintf(out, "block %#" PRIx64 " %" PRIu64 " %" PRIu64 "\n", each->address, each->length,
              each->executions - each->before);
    each->before = each->executions;
  }
}

static void begin(unsigned cpu, void* left) {
  (void)cpu;
  write_blocks();
  begun = reached(left) + 1;
}

static void tick(unsigned cpu, void* left) {
  (void)cpu;
  if (!begun) return;
  write_blocks();
  fprintf(out, "tick %" PRIu64 "\n", reached(left) - begun);
}

static void end(unsigned cpu, void* left) {
  (void)cpu;
  write_blocks();
  fprintf(out, "section %" PRIu64 "\n", reached(left) - begun);
  begun = 0;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* code) {
  (void)id;
  struct block* made = calloc(1, sizeof *made);
  if (!made) abort();
  made->address = qemu_plugin_tb_vaddr(code);
  made->length = qemu_plugin_tb_n_insns(code);
  made->next = blocks;
  blocks = made;
  qemu_plugin_register_vcpu_tb_exec_inline(code, ADD_U64, &made->executions, 1);
  qemu_plugin_register_vcpu_tb_exec_inline(code, ADD_U64, &executed, made->length);
  for (size_t i = 0; i < made->length; ++i) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(code, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
    void (*act)(unsigned, void*) = word == BEGIN                 ? begin
                                   : word == END                 ? end
                                   : (word & ~31u) == READ_CLOCK ? tick
                                                                 : 0;
    if (act)
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, act, NO_REGISTERS,
                                             (void*)(uintptr_t)(made->length - i));
  }
}

static void started(qemu_plugin_id_t id, unsigned cpu) {
  (void)id;
  (void)cpu;
  ++threads;
}

static void finished(qemu_plugin_id_t id, void* data) {
  (void)id;
  (void)data;
  fprintf(out, "program %" PRIu64 "\nthreads %u\n", executed, threads);
  fclose(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int count,
                               char** arguments) {
  const char* path = count == 1 && !strncmp(arguments[0], "out=", 4) ? arguments[0] + 4 : 0;
  out = path ? fopen(path, "w") : 0;
  if (!out || strcmp(info->target_name, "aarch64")) {
    fputs("counter: expected qemu-aarch64, and out=FILE that can be written\n", stderr);
    return 1;
  }
  qemu_plugin_register_vcpu_init_cb(id, started);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finished, 0);
  return 0;
}
