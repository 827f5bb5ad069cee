"""How many threads can share a call; without TVM, for programs that only run models."""

MOST_PARTS = 64
"""Parts of a call, and slots of a per-part result."""
