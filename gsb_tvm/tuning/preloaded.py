"""What the server of children imports before anything else: TVM, as commands do."""

from gsb_tvm.dialect.without_torch import without_torch

with without_torch():
    import tvm  # noqa: F401
