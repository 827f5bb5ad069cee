/* Eight threads with a context each: argv[1] an image, argv[2] its logits, argv[3] runs of all,
 * argv[4] threads of each context. Does them in ten rounds and prints how many more bytes were
 * allocated after the last one than after the first, which makes what the C library keeps of its
 * own threads. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "demo.h"

enum { CALLERS = 8 };

static float image[DEMO_IMAGE_COUNT], expected[DEMO_LOGITS_COUNT];
static int runs, threads;
static int wrong;

static long allocated(void) {
  struct mallinfo2 all = mallinfo2();
  return (long)(all.uordblks + all.hblkhd);
}

static void* call(void* unused) {
  float logits[DEMO_LOGITS_COUNT];
  demo_context* context = 0;
  for (int i = 0; i < runs / CALLERS; ++i) {
    /* A new context now and then: what one keeps must go with it. */
    if (i % 100 == 0) {
      demo_destroy(context);
      if (demo_create(&context, threads)) __atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
    }
    memset(logits, 0, sizeof logits);
    if (!context || demo_run(context, image, logits) ||
        memcmp(logits, expected, sizeof expected))
      __atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
  }
  demo_destroy(context);
  return unused;
}

static void run_all(void) {
  pthread_t callers[CALLERS];
  for (int i = 0; i < CALLERS; ++i)
    if (pthread_create(&callers[i], 0, call, 0)) exit(2);
  for (int i = 0; i < CALLERS; ++i) pthread_join(callers[i], 0);
}

static void read_numbers(const char* path, float* into, size_t count) {
  FILE* file = fopen(path, "rb");
  if (!file || fread(into, sizeof *into, count, file) != count) exit(2);
  fclose(file);
}

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  read_numbers(argv[1], image, DEMO_IMAGE_COUNT);
  read_numbers(argv[2], expected, DEMO_LOGITS_COUNT);
  runs = atoi(argv[3]) / 10;
  threads = atoi(argv[4]);
  /* Or else the C library makes arenas of 2 kB as threads happen to meet. */
  mallopt(M_ARENA_MAX, 1);
  long before = 0;
  for (int round = 0; round < 10; ++round) {
    run_all();
    if (round == 0) before = allocated();
  }
  printf("%ld\n", allocated() - before);
  return wrong;
}
