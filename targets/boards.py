"""Tags of boards: what TVM's leave out, and those that TVM has not.

A tag of TVM without a CPU would be tuned for none, with the smallest caches. The CPUs named here
have the features of every other core of the same chip, so code for them runs on all of its cores.
"""

from collections.abc import Mapping
from types import MappingProxyType

from gsb_tvm.targets import llvm

_LINUX = "aarch64-linux-gnu"

KNOWN: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        # Kirin 970: four Cortex-A73 beside four Cortex-A53. Source: Linux device tree hi3670.dtsi
        "arm/mate10": {"mcpu": "cortex-a73", "num-cores": 4},
        # Snapdragon 835: four Kryo 280 of Cortex-A73 beside four of Cortex-A53.
        # Source: Linux device tree msm8998.dtsi; AnandTech 11201
        "arm/pixel2": {"mcpu": "cortex-a73", "num-cores": 4},
        # Two Cortex-A72 beside four Cortex-A53. Source: Linux device tree rk3399-base.dtsi
        "arm/rk3399": {"mcpu": "cortex-a72", "num-cores": 2},
        # Zynq UltraScale+. Source: Linux device tree zynqmp.dtsi
        "arm/ultra96": {"mcpu": "cortex-a53", "num-cores": 4},
        "raspberry-pi/3b-aarch64": {"kind": "llvm", "mtriple": _LINUX, "mcpu": "cortex-a53"},
        "raspberry-pi/5-aarch64": {"kind": "llvm", "mtriple": _LINUX, "mcpu": "cortex-a76"},
    }
)
"""Tag -> keys of a target that stand beside TVM's own, or, of a tag that is ours, all of them."""


def tags() -> tuple[str, ...]:
    """TVM's tags and ours, sorted."""
    return tuple(sorted({*llvm.tags(), *KNOWN}))


def config(tag: str) -> dict[str, object]:
    """Attributes of the target that ``tag``, one of :func:`tags`, stands for."""
    theirs = llvm.tag_config(tag) if tag in llvm.tags() else {}
    return {**theirs, **KNOWN.get(tag, {})}
