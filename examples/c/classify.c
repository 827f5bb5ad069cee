/* Which digit is in a picture: a program around a compiled model, without allocation or threads.
 *
 *   classify PICTURE ... */
#include <stdio.h>

#include "gsb_digits.h"
#include "image.h"

static float picture[GSB_DIGITS_IMAGE_COUNT], logits[GSB_DIGITS_LOGITS_COUNT];
static _Alignas(GSB_DIGITS_ALIGNMENT) unsigned char arena[GSB_DIGITS_ARENA_BYTES];

static int largest(const float* numbers, int count) {
  int best = 0;
  for (int i = 1; i < count; ++i)
    if (numbers[i] > numbers[best]) best = i;
  return best;
}

static int classify(const char* path) {
  /* (batch, channels, height, width) */
  const int64_t* shape = gsb_digits_inputs[0].shape;
  const char* error = read_image(path, (int)shape[1], (int)shape[2], (int)shape[3], picture);
  if (error) {
    fprintf(stderr, "error: %s: %s.\n", path, error);
    return 1;
  }
  if (gsb_digits_run_in(arena, picture, logits) != GSB_DIGITS_OK) {
    fprintf(stderr, "error: %s\n", gsb_digits_last_error());
    return 1;
  }
  int digit = largest(logits, (int)GSB_DIGITS_LOGITS_COUNT);
  printf("%s: %d (%.2f)\n", path, digit, (double)logits[digit]);
  return 0;
}

int main(int argc, char** argv) {
  int failed = argc < 2;
  if (failed) fprintf(stderr, "usage: classify PICTURE ...\n");
  for (int i = 1; i < argc; ++i) failed |= classify(argv[i]);
  return failed;
}
