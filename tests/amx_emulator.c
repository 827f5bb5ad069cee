// Executes AMX in software: a handler of SIGILL decodes the tile instructions that this CPU lacks,
// carries them out on tiles of its own, and lets the program go on behind them.
//
// Source of encodings, operations and faults: Intel 64 and IA-32 Architectures Software Developer's
// Manual, volume 2 (LDTILECFG, STTILECFG, TDPBxxD, TILELOADD/T1, TILERELEASE, TILESTORED, TILEZERO)
// and section 2.6, exception classes AMX-E1 to AMX-E6. What is a fault in hardware ends the process
// here, with a sentence that says which one. Data types other than bytes are left to fault.
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, KINDS = 5 };
enum Kind { CONFIGURE, CLEAR, LOAD, STORE, MULTIPLY };  // what tests can count

// The SIGILL of an instruction is delivered to its thread, so tiles and counts are the thread's.
// Their first use may allocate, which is safe: a tile instruction never interrupts the allocator.
static _Thread_local struct {
  uint8_t palette;  // 0: not configured
  uint8_t start_row;
  uint16_t row_bytes[TILES];
  uint8_t rows[TILES];  // 0: the tile is not valid
  uint8_t data[TILES][ROWS][ROW_BYTES];
  uint64_t count[KINDS];
} cpu;

static struct sigaction before;

typedef struct {
  uint8_t opcode, prefix, is_memory, reg, rm, vvvv;
  uint8_t* address;  // of a memory operand; of its row 0 where it has a stride
  int64_t stride;
  const uint8_t* next;
} Instruction;

__attribute__((noreturn)) static void fault(const char* what) {
  static const char head[] = "AMX emulator: ";
  // Nothing can be done about a message that is not written.
  if (write(2, head, sizeof head - 1) < 0 || write(2, what, strlen(what)) < 0) _exit(1);
  if (write(2, "\n", 1) < 0) _exit(1);
  abort();
}

static void require(int holds, const char* what) {
  if (!holds) fault(what);
}

static int64_t general_register(const greg_t* registers, int number) {
  static const int place[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                              REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                              REG_R12, REG_R13, REG_R14, REG_R15};
  return registers[place[number]];
}

// Reads the memory operand behind a ModRM byte at `at`; `high_index` and `high_base` are VEX.X and
// VEX.B as bit 3 of a register's number. A tile's SIB index is its stride and not part of `address`.
static void decode_address(const uint8_t* at, const greg_t* registers, int high_index,
                           int high_base, int is_tile, Instruction* out) {
  int mod = at[0] >> 6, rm = at[0] & 7, has_base = 1, base = rm | high_base;
  int64_t address = 0, displacement = 0;
  ++at;
  require(!is_tile || rm == 4, "#UD: a tile's address needs a SIB byte.");
  if (rm == 4) {
    int index = (at[0] >> 3 & 7) | high_index;
    base = (at[0] & 7) | high_base;
    has_base = !((at[0] & 7) == 5 && mod == 0);
    int64_t scaled = index == 4 ? 0 : general_register(registers, index) * (1 << (at[0] >> 6));
    if (is_tile) out->stride = scaled;
    address = is_tile ? 0 : scaled;
    ++at;
  } else if (rm == 5 && mod == 0) {
    has_base = 0;
    address = (int64_t)(at + 4);  // RIP of the next instruction: no immediate follows
  }
  if (mod == 1) {
    displacement = (int8_t)*at++;
  } else if (mod == 2 || !has_base) {
    int32_t wide;
    memcpy(&wide, at, sizeof wide);
    displacement = wide;
    at += sizeof wide;
  }
  if (has_base) address += general_register(registers, base);
  out->address = (uint8_t*)(address + displacement);
  out->next = at;
}

// Whether a three-byte VEX instruction of map 0F38 with one of AMX's opcodes stands at `at`.
static int decode(const uint8_t* at, const greg_t* registers, Instruction* out) {
  if (at[0] != 0xC4 || (at[1] & 0x1F) != 2) return 0;
  out->opcode = at[3];
  if (out->opcode != 0x49 && out->opcode != 0x4B && out->opcode != 0x5E) return 0;
  require(!(at[2] & 0x84), "#UD: VEX.W and VEX.L must be 0.");
  require(at[1] & 0x80, "#UD: VEX.R selects a tile above 7.");
  out->prefix = at[2] & 3;
  out->vvvv = ~at[2] >> 3 & 15;
  require(out->opcode == 0x5E || out->vvvv == 0, "#UD: VEX.vvvv must be 1111b.");
  out->is_memory = at[4] < 0xC0;
  out->reg = at[4] >> 3 & 7;
  out->rm = at[4] & 7;
  out->next = at + 5;
  if (out->is_memory) {
    decode_address(at + 4, registers, at[1] & 0x40 ? 0 : 8, at[1] & 0x20 ? 0 : 8,
                   out->opcode == 0x4B, out);
  }
  return 1;
}

static void configure(const uint8_t* from) {
  memset(&cpu, 0, offsetof(__typeof__(cpu), count));
  require(from[0] <= 1, "#GP: the palette must be 0 or 1.");
  if (from[0] == 0) return;
  for (int i = 0; i < 64; ++i) {
    int is_reserved = (i >= 2 && i < 16) || (i >= 32 && i < 48) || i >= 56;
    require(!is_reserved || from[i] == 0, "#GP: a reserved byte of the configuration is not 0.");
  }
  for (int t = 0; t < TILES; ++t) {
    memcpy(&cpu.row_bytes[t], from + 16 + 2 * t, 2);
    cpu.rows[t] = from[48 + t];
    require(cpu.row_bytes[t] <= ROW_BYTES, "#GP: a tile's row has more than 64 bytes.");
    require(cpu.rows[t] <= ROWS, "#GP: a tile has more than 16 rows.");
    require(!cpu.row_bytes[t] == !cpu.rows[t], "#GP: only one extent of a tile is 0.");
  }
  cpu.palette = 1;
  cpu.start_row = from[1];
}

static void store_configuration(uint8_t* to) {
  memset(to, 0, 64);
  to[0] = cpu.palette;
  to[1] = cpu.start_row;
  memcpy(to + 16, cpu.row_bytes, sizeof cpu.row_bytes);
  memcpy(to + 48, cpu.rows, sizeof cpu.rows);
}

static void require_tile(int tile) {
  require(cpu.palette == 1, "#UD: tiles are not configured.");
  require(tile < TILES, "#UD: there is no such tile.");
  require(cpu.rows[tile], "#UD: a tile without a configured size.");
}

static void load(int tile, const Instruction* in) {
  int first = cpu.start_row;
  require(first < cpu.rows[tile], "#UD: the start row is not in the tile.");
  if (first == 0) memset(cpu.data[tile], 0, sizeof cpu.data[tile]);
  for (int row = first; row < cpu.rows[tile]; ++row) {
    memset(cpu.data[tile][row], 0, ROW_BYTES);
    memcpy(cpu.data[tile][row], in->address + row * in->stride, cpu.row_bytes[tile]);
  }
  cpu.start_row = 0;
}

static void store(int tile, const Instruction* in) {
  for (int row = cpu.start_row; row < cpu.rows[tile]; ++row)
    memcpy(in->address + row * in->stride, cpu.data[tile][row], cpu.row_bytes[tile]);
  cpu.start_row = 0;
}

static int widened(uint8_t byte, int is_signed) { return is_signed ? (int8_t)byte : byte; }

// total (m x n int32) += left (m x 4k bytes) * right (k x 4n bytes, four rows of a column together).
// Sums wrap at 32 bits, hence unsigned.
static inline __attribute__((always_inline)) void multiply_as(int total, int left, int right,
                                                              int left_signed, int right_signed) {
  for (int m = 0; m < cpu.rows[total]; ++m) {
    uint32_t sums[ROW_BYTES / 4];
    memcpy(sums, cpu.data[total][m], sizeof sums);
    for (int k = 0; k < cpu.row_bytes[left] / 4; ++k)
      for (int n = 0; n < cpu.row_bytes[right] / 4; ++n)
        for (int i = 0; i < 4; ++i)
          sums[n] += (uint32_t)(widened(cpu.data[left][m][4 * k + i], left_signed) *
                                widened(cpu.data[right][k][4 * n + i], right_signed));
    memset(cpu.data[total][m], 0, ROW_BYTES);
    memcpy(cpu.data[total][m], sums, cpu.row_bytes[total]);
  }
  for (int m = cpu.rows[total]; m < ROWS; ++m) memset(cpu.data[total][m], 0, ROW_BYTES);
}

static void multiply(const Instruction* in) {
  int total = in->reg, left = in->rm, right = in->vvvv;
  require_tile(total), require_tile(left), require_tile(right);
  require(total != left && left != right && total != right, "#UD: two operands are one tile.");
  require(cpu.row_bytes[total] % 4 == 0 && cpu.row_bytes[left] % 4 == 0,
          "#UD: a tile's row is not whole doublewords.");
  require(cpu.rows[total] == cpu.rows[left], "#UD: the sum and A differ in rows.");
  require(cpu.row_bytes[total] == cpu.row_bytes[right], "#UD: the sum and B differ in columns.");
  require(cpu.row_bytes[left] == 4 * cpu.rows[right], "#UD: A's columns are not B's rows.");
  switch (in->prefix) {
    case 0: multiply_as(total, left, right, 0, 0); break;  // TDPBUUD
    case 1: multiply_as(total, left, right, 0, 1); break;  // TDPBUSD
    case 2: multiply_as(total, left, right, 1, 0); break;  // TDPBSUD
    case 3: multiply_as(total, left, right, 1, 1); break;  // TDPBSSD
  }
  cpu.start_row = 0;
}

// Prefixes: 0 none, 1 is 66, 2 is F3, 3 is F2. 0 where the instruction is none of those known here.
static int execute(const Instruction* in) {
  if (in->opcode == 0x5E && !in->is_memory) {
    multiply(in);
    ++cpu.count[MULTIPLY];
  } else if (in->opcode == 0x4B && in->is_memory && in->prefix != 0) {
    require_tile(in->reg);
    (in->prefix == 2 ? store : load)(in->reg, in);  // F2 TILELOADD, 66 TILELOADDT1
    ++cpu.count[in->prefix == 2 ? STORE : LOAD];
  } else if (in->opcode == 0x49 && in->is_memory && in->reg == 0 && in->prefix < 2) {
    if (in->prefix == 0) ++cpu.count[CONFIGURE];
    in->prefix == 0 ? configure(in->address) : store_configuration(in->address);
  } else if (in->opcode == 0x49 && !in->is_memory && in->prefix == 0 && in->reg + in->rm == 0) {
    memset(&cpu, 0, offsetof(__typeof__(cpu), count));  // TILERELEASE
  } else if (in->opcode == 0x49 && !in->is_memory && in->prefix == 3 && in->rm == 0) {
    require_tile(in->reg);
    memset(cpu.data[in->reg], 0, sizeof cpu.data[in->reg]);
    ++cpu.count[CLEAR];
  } else {
    return 0;
  }
  return 1;
}

static void on_illegal(int number, siginfo_t* info, void* context) {
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  Instruction in = {0};
  (void)number, (void)info;
  if (decode((const uint8_t*)registers[REG_RIP], registers, &in) && execute(&in)) {
    registers[REG_RIP] = (greg_t)in.next;
  } else {
    sigaction(SIGILL, &before, 0);  // the instruction runs again, and faults to whoever was here
  }
}

// Takes SIGILL over; 0, or -1 with errno. Called once.
int amx_emulate(void) {
  struct sigaction action = {.sa_flags = SA_SIGINFO};
  action.sa_sigaction = on_illegal;
  return sigaction(SIGILL, &action, &before);
}

// How many instructions of a kind the calling thread has executed.
uint64_t amx_count(int kind) { return cpu.count[kind]; }

// Whether the calling thread's tiles are configured.
int amx_configured(void) { return cpu.palette; }
