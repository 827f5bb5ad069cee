/* What a C library promises, on the demo model: argv[1] holds an image, argv[2] its logits. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "demo.h"

#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) {                                                               \
      fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, demo_last_error()); \
      exit(1);                                                                        \
    }                                                                                 \
  } while (0)

static float image[DEMO_IMAGE_COUNT], expected[DEMO_LOGITS_COUNT];
static _Alignas(DEMO_ALIGNMENT) unsigned char arena[DEMO_ARENA_BYTES + DEMO_ALIGNMENT];

static void read_numbers(const char* path, float* into, size_t count) {
  FILE* file = fopen(path, "rb");
  CHECK(file && fread(into, sizeof *into, count, file) == count);
  fclose(file);
}

static int is_expected(const float* logits) {
  return memcmp(logits, expected, sizeof expected) == 0;
}

static int says(const char* words) { return strstr(demo_last_error(), words) != 0; }

static void in_memory_of_the_caller(void) {
  float logits[DEMO_LOGITS_COUNT] = {0};
  memset(arena, 0xFF, sizeof arena); /* nothing may be taken for zero */
  CHECK(demo_run_in(arena, image, logits) == DEMO_OK && is_expected(logits));
  CHECK(demo_run_in(arena, image, logits) == DEMO_OK && is_expected(logits));
  CHECK(demo_run_in(0, image, logits) == DEMO_ERROR_ARGUMENT && says("arena"));
  CHECK(demo_run_in(arena + 8, image, logits) == DEMO_ERROR_ARGUMENT && says("multiple of 64"));
  CHECK(demo_run_in(arena, 0, logits) == DEMO_ERROR_ARGUMENT && says("input \"image\" is null"));
  CHECK(demo_run_in(arena, image, 0) == DEMO_ERROR_ARGUMENT && says("output \"logits\" is null"));
  for (size_t i = DEMO_ARENA_BYTES; i < sizeof arena; ++i) CHECK(arena[i] == 0xFF);
}

static void numbers_without_alignment(void) {
  static float in[DEMO_IMAGE_COUNT + 1], out[DEMO_LOGITS_COUNT + 1];
  memcpy(in + 1, image, sizeof image);
  CHECK(demo_run_in(arena, in + 1, out + 1) == DEMO_OK && is_expected(out + 1));
}

static void tensors_are_described(void) {
  CHECK(strcmp(demo_inputs[0].name, "image") == 0 && strcmp(demo_inputs[0].dtype, "float32") == 0);
  CHECK(demo_inputs[0].rank == 4 && demo_inputs[0].bytes == sizeof image);
  size_t count = 1;
  for (int i = 0; i < demo_inputs[0].rank; ++i) count *= (size_t)demo_inputs[0].shape[i];
  CHECK(count == DEMO_IMAGE_COUNT);
  CHECK(demo_outputs[0].rank == 2 && demo_outputs[0].shape[1] == DEMO_LOGITS_COUNT);
}

static void on_threads(int threads) {
  float logits[DEMO_LOGITS_COUNT];
  demo_context* context = 0;
  CHECK(demo_create(&context, threads) == DEMO_OK);
  for (int i = 0; i < 20; ++i) {
    memset(logits, 0, sizeof logits);
    CHECK(demo_run(context, image, logits) == DEMO_OK && is_expected(logits));
    if (i % 5 == 4) usleep(1000); /* long enough for them to sleep */
  }
  demo_destroy(context);
}

static void bad_contexts(void) {
  demo_context* context = (demo_context*)arena;
  float logits[DEMO_LOGITS_COUNT];
  CHECK(demo_create(0, 1) == DEMO_ERROR_ARGUMENT);
  CHECK(demo_create(&context, 0) == DEMO_ERROR_ARGUMENT && !context && says("expected 1 to 64"));
  CHECK(demo_create(&context, 65) == DEMO_ERROR_ARGUMENT);
  CHECK(demo_run(0, image, logits) == DEMO_ERROR_ARGUMENT && says("context is null"));
  demo_destroy(0);
}

static demo_context* contested;
static int served, refused;

static void* contest(void* unused) {
  float logits[DEMO_LOGITS_COUNT];
  for (int i = 0; i < 500; ++i) {
    int status = demo_run(contested, image, logits);
    CHECK(status == DEMO_ERROR_BUSY || (status == DEMO_OK && is_expected(logits)));
    __atomic_add_fetch(status ? &refused : &served, 1, __ATOMIC_RELAXED);
  }
  return unused;
}

static void one_context_two_callers(int threads) {
  pthread_t other;
  CHECK(demo_create(&contested, threads) == DEMO_OK);
  CHECK(pthread_create(&other, 0, contest, 0) == 0);
  contest(0);
  pthread_join(other, 0);
  CHECK(served > 0);
  demo_destroy(contested);
}

static void in_a_child(void) {
  float logits[DEMO_LOGITS_COUNT];
  demo_context *alone, *shared;
  CHECK(demo_create(&alone, 1) == DEMO_OK && demo_create(&shared, 2) == DEMO_OK);
  CHECK(demo_run(shared, image, logits) == DEMO_OK);
  pid_t child = fork();
  if (child == 0) {
    CHECK(demo_run(alone, image, logits) == DEMO_OK && is_expected(logits));
    CHECK(demo_run(shared, image, logits) == DEMO_ERROR_THREADS && says("forked"));
    demo_destroy(shared);
    CHECK(demo_create(&shared, 2) == DEMO_OK && demo_run(shared, image, logits) == DEMO_OK);
    CHECK(is_expected(logits));
    demo_destroy(shared);
    demo_destroy(alone);
    exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(demo_run(shared, image, logits) == DEMO_OK && is_expected(logits));
  demo_destroy(shared);
  demo_destroy(alone);
}

static void* fresh_thread(void* unused) {
  CHECK(demo_last_error()[0] == 0);
  return unused;
}

static void errors_belong_to_threads(void) {
  pthread_t other;
  CHECK(demo_create(0, 1) == DEMO_ERROR_ARGUMENT && demo_last_error()[0]);
  CHECK(pthread_create(&other, 0, fresh_thread, 0) == 0);
  pthread_join(other, 0);
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  read_numbers(argv[1], image, DEMO_IMAGE_COUNT);
  read_numbers(argv[2], expected, DEMO_LOGITS_COUNT);
  in_memory_of_the_caller();
  numbers_without_alignment();
  tensors_are_described();
  bad_contexts();
  errors_belong_to_threads();
  const int threads[] = {1, 2, 3, 7, 64};
  for (int i = 0; i < 5; ++i) on_threads(threads[i]);
  one_context_two_callers(1);
  one_context_two_callers(2);
  if (argc == 3) in_a_child(); /* thread sanitizers and emulators know no threads behind fork */
  puts("ok");
  return 0;
}
