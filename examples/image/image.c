#include "image.h"

#include <stdlib.h>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#include <stb_image.h>

/* The second version of the library has other names. */
#if __has_include(<stb_image_resize2.h>)
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_STATIC
#include <stb_image_resize2.h>
static int resized(const unsigned char* from, int w, int h, unsigned char* to, int width,
                   int height, int channels) {
  return stbir_resize_uint8_linear(from, w, h, 0, to, width, height, 0,
                                   (stbir_pixel_layout)channels) != 0;
}
#else
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_STATIC
#include <stb_image_resize.h>
static int resized(const unsigned char* from, int w, int h, unsigned char* to, int width,
                   int height, int channels) {
  return stbir_resize_uint8(from, w, h, 0, to, width, height, 0, channels);
}
#endif

const char* read_image(const char* path, int channels, int height, int width, float* numbers) {
  int w, h, in_file;
  unsigned char* pixels = stbi_load(path, &w, &h, &in_file, channels);
  if (!pixels) return stbi_failure_reason();
  unsigned char* scaled = malloc((size_t)channels * (size_t)height * (size_t)width);
  const char* error = "out of memory";
  if (scaled && resized(pixels, w, h, scaled, width, height, channels)) {
    for (int c = 0; c < channels; ++c)
      for (int i = 0; i < height * width; ++i)
        numbers[c * height * width + i] = (float)scaled[i * channels + c] / 127.5f - 1.0f;
    error = 0;
  }
  free(scaled);
  stbi_image_free(pixels);
  return error;
}
