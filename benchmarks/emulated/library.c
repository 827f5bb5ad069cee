/* One call of a C library without threads: library INPUT OUTPUT, files of float32. */
#include <stdio.h>
#include <stdlib.h>

#include "network.h"

static _Alignas(NETWORK_ALIGNMENT) unsigned char arena[NETWORK_ARENA_BYTES];

int main(int argc, char** argv) {
  size_t input_bytes = network_inputs[0].bytes, output_bytes = network_outputs[0].bytes;
  FILE* in = argc == 3 ? fopen(argv[1], "rb") : NULL;
  FILE* out = argc == 3 ? fopen(argv[2], "wb") : NULL;
  float* input = malloc(input_bytes);
  float* output = malloc(output_bytes);
  if (!in || !out || !input || !output || fread(input, 1, input_bytes, in) != input_bytes) {
    fputs("expected INPUT OUTPUT, the first with the numbers of one input\n", stderr);
    return 2;
  }
  if (network_run_in(arena, input, output) != NETWORK_OK) {
    fprintf(stderr, "%s\n", network_last_error());
    return 1;
  }
  int written = fwrite(output, 1, output_bytes, out) == output_bytes;
  free(input);
  free(output);
  fclose(in);
  return fclose(out) == 0 && written ? 0 : 1;
}
