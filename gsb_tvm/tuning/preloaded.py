"""What the server of children imports before anything else: TVM, as commands do."""

from gsb_tvm.dialect.versions import import_tvm

import_tvm()
