"""The version of this package, and the pair of TVM packages that it works with."""

from gsb_tvm.dialect.errors import ToolchainError

PACKAGE = "0.1.0"
TVM = "0.27.0.post1"
TVM_FFI = "0.1.14"
"""Prefix of the versions of apache-tvm-ffi that serve :data:`TVM`.

The ones pip prefers by itself, 0.1.15 and later, crash when a module is saved; older ones do not
load. The same pin stands in pyproject.toml.
"""

CURE = f'pip install "apache-tvm=={TVM}" "apache-tvm-ffi>={TVM_FFI}.post0,<0.1.15"'


def installed(package: str) -> str:
    """Version of an installed package, or "" where it is not installed; imports nothing of it."""
    from importlib.metadata import PackageNotFoundError, version  # 16 ms that few need

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def check_tvm() -> None:
    """Refuse to go on with TVM packages that are known not to work together.

    Raises
    ------
    ToolchainError
        A package of the pair is missing or of another version; the message names the cure.
    """
    found = {name: installed(name) for name in ("apache-tvm", "apache-tvm-ffi")}
    for name, ours in found.items():
        if not ours:
            raise ToolchainError(f"{name} is not installed. Run: {CURE}")
    if found["apache-tvm"] != TVM:
        raise ToolchainError(
            f"apache-tvm {found['apache-tvm']} is installed, expected {TVM}. Run: {CURE}"
        )
    series = ".".join(found["apache-tvm-ffi"].split(".")[:3])
    if series != TVM_FFI:
        raise ToolchainError(
            f"apache-tvm-ffi {found['apache-tvm-ffi']} is installed, and only {TVM_FFI} works "
            f"with apache-tvm {TVM} (others crash or do not load). Run: {CURE}"
        )
