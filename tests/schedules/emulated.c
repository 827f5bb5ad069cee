/* Runs a kernel of TVM's calling convention on tensors from standard input, and writes them back.
 *
 * Input, in the machine's byte order: the number of tensors, then of each its type (code, bits,
 * dimensions: int64), its shape, and its elements. Output: the elements of all tensors. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { DLTENSOR_POINTER = 7, CPU = 1, ALIGNMENT = 64, MOST = 64 };

/* Layouts of dlpack.h and tvm/ffi/c_api.h. */
typedef struct {
  void* data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} Tensor;

typedef struct {
  int32_t type_index;
  uint32_t padding;
  void* pointer;
} Any;

int __tvm_ffi_main(void* self, const Any* args, int32_t count, Any* result);

static void* allocate(size_t size) {
  void* out = aligned_alloc(ALIGNMENT, (size + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
  if (out == NULL) abort();
  return out;
}

static void* workspace(int type, int id, uint64_t size, int code, int bits) {
  return allocate(size);
}

static int release(int type, int id, void* memory) {
  free(memory);
  return 0;
}

void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = release;

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  for (int32_t i = 0; i < count; ++i) fputs(parts[i], stderr);
}

static int64_t number(void) {
  int64_t value;
  if (fread(&value, sizeof value, 1, stdin) != 1) abort();
  return value;
}

int main(void) {
  static Tensor tensors[MOST];
  static Any args[MOST];
  static size_t sizes[MOST];
  int32_t count = (int32_t)number();
  if (count > MOST) abort();
  for (int32_t i = 0; i < count; ++i) {
    Tensor* tensor = &tensors[i];
    tensor->device_type = CPU;
    tensor->lanes = 1;
    tensor->code = (uint8_t)number();
    tensor->bits = (uint8_t)number();
    tensor->ndim = (int32_t)number();
    tensor->shape = allocate(tensor->ndim * sizeof(int64_t));
    sizes[i] = tensor->bits / 8;
    for (int32_t k = 0; k < tensor->ndim; ++k) sizes[i] *= tensor->shape[k] = number();
    tensor->data = allocate(sizes[i]);
    if (fread(tensor->data, 1, sizes[i], stdin) != sizes[i]) abort();
    args[i] = (Any){DLTENSOR_POINTER, 0, tensor};
  }
  Any result = {0};
  if (__tvm_ffi_main(NULL, args, count, &result)) return 1;
  for (int32_t i = 0; i < count; ++i) fwrite(tensors[i].data, 1, sizes[i], stdout);
  return fflush(stdout) != 0;
}
