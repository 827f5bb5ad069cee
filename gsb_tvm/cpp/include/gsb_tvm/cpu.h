/* Whether this CPU, and its system, have what compiled code needs: C11 or C++17, libc only.
 *
 * The numbers come from an artefact; the compiler writes them from targets/feature_bits.py, which
 * says what each word is. Ask before the first call: code for a CPU with more ends in SIGILL.
 */
#ifndef GSB_TVM_CPU_H_
#define GSB_TVM_CPU_H_

#if !defined(__linux__) || !defined(__LP64__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "gsb_tvm is for 64-bit x86 and Arm under Linux: compile this program for one of them."
#endif

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <sys/auxv.h>
#endif

/* A feature by its Linux name: bit `bit` of word `word`, and the bits of XCR0 that the system must
 * have set, 0 for none. */
struct gsb_cpu_feature {
  const char* name;
  uint16_t word;
  uint8_t bit;
  uint32_t xcr0;
};

#if defined(__x86_64__)

/* Registers of a CPUID leaf, all 0 where the CPU has no such leaf. */
struct gsb_cpu_leaf {
  uint32_t eax, ebx, ecx, edx;
};

static inline struct gsb_cpu_leaf gsb_cpu_cpuid(uint32_t leaf, uint32_t subleaf) {
  struct gsb_cpu_leaf found = {0, 0, 0, 0};
  /* A leaf that a CPU lacks answers with the numbers of another; __get_cpuid_count looks first. */
  if (!__get_cpuid_count(leaf, subleaf, &found.eax, &found.ebx, &found.ecx, &found.edx)) {
    found.eax = found.ebx = found.ecx = found.edx = 0;
  }
  return found;
}

/* Leaf 7, subleaf 1; EAX of subleaf 0 is the number of the last subleaf. */
static inline struct gsb_cpu_leaf gsb_cpu_leaf_7_1(void) {
  const struct gsb_cpu_leaf none = {0, 0, 0, 0};
  return gsb_cpu_cpuid(7, 0).eax >= 1 ? gsb_cpu_cpuid(7, 1) : none;
}

/* Bits 1 to n for version n of AVX10, 0 without it (leaf 7, subleaf 1: EDX bit 19). */
static inline uint64_t gsb_cpu_avx10(void) {
  const uint32_t version =
      gsb_cpu_leaf_7_1().edx >> 19 & 1 ? gsb_cpu_cpuid(0x24, 0).ebx & 0xff : 0;
  return version < 63 ? (UINT64_C(2) << version) - 2 : ~UINT64_C(1);
}

/* A word of features; 0, which says that all are missing, where it is not known here. */
static inline uint64_t gsb_cpu_word(uint16_t word) {
  switch (word) {
    case 0:
      return gsb_cpu_cpuid(1, 0).edx;
    case 1:
      return gsb_cpu_cpuid(0x80000001u, 0).edx;
    case 4:
      return gsb_cpu_cpuid(1, 0).ecx;
    case 6:
      return gsb_cpu_cpuid(0x80000001u, 0).ecx;
    case 9:
      return gsb_cpu_cpuid(7, 0).ebx;
    case 12:
      return gsb_cpu_leaf_7_1().eax;
    case 16:
      return gsb_cpu_cpuid(7, 0).ecx;
    case 18:
      return gsb_cpu_cpuid(7, 0).edx;
    case 64:
      return gsb_cpu_leaf_7_1().edx;
    case 65:
      return gsb_cpu_avx10();
    default:
      return 0;
  }
}

/* XCR0: the registers that the system saves at a switch of threads. */
static inline uint32_t gsb_cpu_xcr0(void) {
  uint32_t low = 0;
  /* Without OSXSAVE (leaf 1: ECX bit 27) xgetbv is an illegal instruction. */
  if (gsb_cpu_cpuid(1, 0).ecx >> 27 & 1) {
    __asm__ volatile("xgetbv" : "=a"(low) : "c"(0) : "edx");
  }
  return low;
}

/* Ask Linux for the tiles of AMX, once in a process before the first of its threads uses them.
 *
 * Returns 0 where they are granted, else what errno would be: EINVAL on a CPU without AMX and
 * before Linux 5.16. Source: Linux, Documentation/arch/x86/xstate.rst. */
static inline int gsb_cpu_allow_tiles(void) {
  /* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), which has no function in libc; syscall()
   * would need a feature macro before the first header. */
  int result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(158L), "D"(0x1023L), "S"(18L)
                   : "rcx", "r11", "memory");
  return -result;
}

#else

/* A word of features; 0, which says that all are missing, where it is not known here. */
static inline uint64_t gsb_cpu_word(uint16_t word) {
  switch (word) {
    case 0:
      return getauxval(AT_HWCAP);
    case 1:
      return getauxval(AT_HWCAP2);
    default:
      return 0;
  }
}

/* Arm has no XCR0, and no feature that asks for a bit of it. */
static inline uint32_t gsb_cpu_xcr0(void) { return 0; }

/* Arm has no tiles of AMX. */
static inline int gsb_cpu_allow_tiles(void) { return ENOSYS; }

#endif

/* The first of `count` features at `needed` that this CPU or its system lacks; NULL for none. */
static inline const struct gsb_cpu_feature* gsb_cpu_missing(const struct gsb_cpu_feature* needed,
                                                            size_t count) {
  const uint32_t saved = gsb_cpu_xcr0();
  for (size_t i = 0; i < count; ++i) {
    const uint64_t word = gsb_cpu_word(needed[i].word);
    const uint64_t set = needed[i].bit < 64 ? word >> needed[i].bit & 1 : 0;
    if (!set || (saved & needed[i].xcr0) != needed[i].xcr0) {
      return &needed[i];
    }
  }
  return NULL;
}

#endif /* GSB_TVM_CPU_H_ */
