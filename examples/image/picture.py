"""Write a picture of a handwritten digit for the examples: ``python picture.py three.ppm``.

The digit is the first one of the demo's test images (scikit-learn's digits: 8 x 8, 0 to 16).
"""

import sys
from pathlib import Path

DIGIT = 6
ROWS = """
    .  .  1 13  7  .  .  .
    .  .  7 14  2  .  .  .
    .  . 13  5  .  .  .  .
    .  . 16  3  .  .  .  .
    .  3 16 10 12 12  3  .
    .  3 16 11  5  9 12  .
    .  1 13 11  4 13 11  .
    .  .  1 12 16 11  2  .
"""
SCALE = 16  # pixels of the picture for each of the digit


def pixels() -> list[bytes]:
    """Rows of the picture: red, green, blue of each pixel."""
    grey = [
        [0 if number == "." else round(int(number) * 255 / 16) for number in line.split()]
        for line in ROWS.strip().splitlines()
    ]
    rows = [b"".join(bytes([value] * 3) * SCALE for value in row) for row in grey]
    return [row for row in rows for _ in range(SCALE)]


def ppm() -> bytes:
    """The picture as a binary PPM file (netpbm, "PPM Format Specification")."""
    rows = pixels()
    return f"P6\n{len(rows[0]) // 3} {len(rows)}\n255\n".encode() + b"".join(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python picture.py FILE.ppm")
    Path(sys.argv[1]).write_bytes(ppm())
