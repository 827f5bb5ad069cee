"""Target strings, device profiles, host detection.

Importing this room loads no TVM; :func:`resolve` and :meth:`Profile.tvm_target` do.
"""

from gsb_tvm.targets.host import missing_here
from gsb_tvm.targets.profile import Profile
from gsb_tvm.targets.resolve import resolve
from gsb_tvm.targets.spec import take_target

__all__ = ["Profile", "missing_here", "resolve", "take_target"]
