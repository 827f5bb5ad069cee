/* Runs a C library called "model" on an image; a call as programs make it is one section for the
 * counter, and one with a clock between its steps the next. shape.h has what depends on the model. */
#include <stdio.h>
#include <stdlib.h>

#include "model.h"
#include "shape.h"

extern const unsigned char model_weights[];
int model_part(TYPES, void*, const void*, int64_t*, int32_t, int32_t, int32_t);

#define BEGIN __asm__ volatile("hint #96" ::: "memory")
#define END __asm__ volatile("hint #97" ::: "memory")

static _Alignas(MODEL_ALIGNMENT) unsigned char arena[MODEL_ARENA_BYTES];
static int64_t ticks[STEPS + 1];

int main(int argc, char** argv) {
  FILE* file = argc == 2 ? fopen(argv[1], "rb") : 0;
  if (!file) return 2;
  void *in[INPUTS], *out[OUTPUTS];
  for (int i = 0; i < INPUTS; ++i) {
    in[i] = malloc(model_inputs[i].bytes);
    if (!in[i] || fread(in[i], 1, model_inputs[i].bytes, file) != model_inputs[i].bytes) return 2;
  }
  for (int i = 0; i < OUTPUTS; ++i) out[i] = malloc(model_outputs[i].bytes);
  model_context* context;
  /* The first call checks the CPU. */
  if (model_create(&context, 1) || model_run(context, CALL)) {
    fputs(model_last_error(), stderr);
    return 3;
  }
  BEGIN;
  int status = model_run(context, CALL);
  END;
  BEGIN;
  model_part(CALL, arena, model_weights, ticks, 0, 1, 1);
  END;
  model_destroy(context);
  return status;
}
