"""Where the headers, templates and CMake files of the package lie."""

from pathlib import Path

CPP = Path(__file__).parents[1] / "cpp"
"""Its folder for C and C++."""
