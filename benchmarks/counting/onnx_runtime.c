/* Runs an ONNX model by ONNX Runtime on one thread: two runs, each a section for the counter.
 *
 *   program LIBRARY MODEL IMAGE OUTPUTS INPUT-NAME OUTPUT-NAME EXTENT...
 *
 * IMAGE holds one float32 tensor of the extents; the first output is written to OUTPUTS.
 *
 * OrtApi is a table of functions to which versions only append, so that places never change
 * (onnxruntime_c_api.h; onnxruntime_c_api.cc asserts them). Declared here are the places used: the
 * packages that hold the library for Arm have no header.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { FLOAT = 1, ARENA_ALLOCATOR = 1, DEFAULT_MEMORY = 0, ERROR_LEVEL = 3, FIRST_API = 1 };
enum {
  GET_ERROR_MESSAGE = 2,
  CREATE_ENV = 3,
  CREATE_SESSION = 7,
  RUN = 9,
  CREATE_SESSION_OPTIONS = 10,
  SET_INTRA_OP_THREADS = 24,
  CREATE_TENSOR_WITH_DATA = 49,
  GET_TENSOR_DATA = 51,
  GET_SHAPE_ELEMENTS = 64,
  GET_TENSOR_SHAPE = 65,
  CREATE_CPU_MEMORY_INFO = 69,
  RELEASE_VALUE = 96
};

struct api_base {
  void* const* (*get_api)(uint32_t version);
  const char* (*get_version)(void);
};

#define BEGIN __asm__ volatile("hint #96" ::: "memory")
#define END __asm__ volatile("hint #97" ::: "memory")

static void* const* api;

/* Every function takes pointers and sizes, in registers of 64 bits, and returns null or an error. */
#define CALL(place, ...) check(((void* (*)())api[place])(__VA_ARGS__))

static void check(void* error) {
  if (!error) return;
  fprintf(stderr, "ONNX Runtime: %s\n", ((const char* (*)(void*))api[GET_ERROR_MESSAGE])(error));
  exit(3);
}

static void* read_file(const char* path, size_t size) {
  void* data = malloc(size);
  FILE* file = fopen(path, "rb");
  if (!data || !file || fread(data, 1, size, file) != size) exit(2);
  fclose(file);
  return data;
}

int main(int argc, char** argv) {
  if (argc < 8) return 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  const struct api_base* (*get_base)(void) = 0;
  if (library) *(void**)&get_base = dlsym(library, "OrtGetApiBase");
  if (!get_base) {
    fputs(dlerror(), stderr);
    return 3;
  }
  api = get_base()->get_api(FIRST_API);
  int64_t shape[8];
  size_t rank = (size_t)argc - 7, size = sizeof(float);
  for (size_t i = 0; i < rank && i < 8; ++i) size *= (size_t)(shape[i] = atoll(argv[7 + i]));
  void* image = read_file(argv[3], size);

  void *environment, *options, *session, *memory, *input, *output = 0;
  CALL(CREATE_ENV, ERROR_LEVEL, "count", &environment);
  CALL(CREATE_SESSION_OPTIONS, &options);
  CALL(SET_INTRA_OP_THREADS, options, 1);
  CALL(CREATE_SESSION, environment, argv[2], options, &session);
  CALL(CREATE_CPU_MEMORY_INFO, ARENA_ALLOCATOR, DEFAULT_MEMORY, &memory);
  CALL(CREATE_TENSOR_WITH_DATA, memory, image, size, shape, rank, FLOAT, &input);
  const char *in = argv[5], *out = argv[6];
  for (int run = 0; run < 2; ++run) {
    if (output) ((void (*)(void*))api[RELEASE_VALUE])(output);
    output = 0;
    BEGIN;
    CALL(RUN, session, (void*)0, &in, &input, (size_t)1, &out, (size_t)1, &output);
    END;
  }
  void *floats, *info;
  size_t count;
  CALL(GET_TENSOR_SHAPE, output, &info);
  CALL(GET_SHAPE_ELEMENTS, info, &count);
  CALL(GET_TENSOR_DATA, output, &floats);
  FILE* file = fopen(argv[4], "wb");
  if (!file || fwrite(floats, sizeof(float), count, file) != count || fclose(file)) return 2;
  return 0;
}
