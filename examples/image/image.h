/* Image files as the numbers that a vision model takes. */
#ifndef EXAMPLES_IMAGE_H
#define EXAMPLES_IMAGE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Read a PNG, PPM, PGM, JPEG or BMP file and scale it to `width` x `height`, bilinear.
 *
 * `numbers` takes channels * height * width floats in [-1, 1], channel by channel, row by row,
 * which is how the demo was trained; a network trained on other numbers needs others here.
 * `channels` is 1 (grey) or 3 (red, green, blue). Returns 0, or a text that says what is wrong. */
const char* read_image(const char* path, int channels, int height, int width, float* numbers);

#ifdef __cplusplus
}
#endif

#endif
