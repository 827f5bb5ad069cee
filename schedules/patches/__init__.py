"""Patch embedding: an image to tokens, lanes along the columns, nothing transposed."""

from gsb_tvm.schedules.patches.kernel import kernel

__all__ = ["kernel"]
