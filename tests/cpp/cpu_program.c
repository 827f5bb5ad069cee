/* What cpu.h says of this machine, for test_cpu.py: C11 and C++17. */
#include "gsb_tvm/cpu.h"

#include <stdio.h>

#include "needed.h" /* written by the test: `needed`, an array of struct gsb_cpu_feature */

int main(void) {
  const size_t count = sizeof(needed) / sizeof(needed[0]);
  const struct gsb_cpu_feature* first = gsb_cpu_missing(needed, count);
  for (size_t i = 0; i < count; ++i) {
    printf("%s %d\n", needed[i].name, gsb_cpu_missing(&needed[i], 1) == NULL);
  }
  printf("first_missing %s\n", first == NULL ? "-" : first->name);
  printf("none_needed %d\n", gsb_cpu_missing(NULL, 0) == NULL);
  printf("tiles %d\n", gsb_cpu_allow_tiles());
  printf("auxv ");
  FILE* vector = fopen("/proc/self/auxv", "rb");
  for (int c; vector != NULL && (c = fgetc(vector)) != EOF;) {
    printf("%02x", (unsigned)c);
  }
  return putchar('\n') == EOF || (vector != NULL && fclose(vector) != 0);
}
