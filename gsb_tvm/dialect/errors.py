"""The errors of the house: each says what is wrong, where, what was expected, and the way out."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    MODEL = 3
    TOOLCHAIN = 4
    STRICT = 5
    VERIFY = 6
    INTERRUPTED = 130


class GsbError(Exception):
    """Base of all errors a user can cause or cure; printed as one sentence, without a traceback."""

    exit_code: ExitCode = ExitCode.INTERNAL


class UsageError(GsbError):
    """An argument of the user's does not fit."""

    exit_code = ExitCode.USAGE


class TargetError(UsageError):
    """A target, CPU, feature or tag that does not exist or cannot be built for."""


class OutputError(UsageError):
    """The output cannot be written: no permission, no space, not a folder."""


class ModelError(GsbError):
    """The model file is damaged, unsafe, or holds what the compiler does not handle."""

    exit_code = ExitCode.MODEL


class ToolchainError(GsbError):
    """A linker, emulator or library that the request needs is missing or failed."""

    exit_code = ExitCode.TOOLCHAIN


class StrictError(GsbError):
    """``--strict`` was asked for and a binary operator was left in float."""

    exit_code = ExitCode.STRICT


class VerifyError(GsbError):
    """The compiled model's outputs differ from the original's."""

    exit_code = ExitCode.VERIFY


class GpuError(GsbError, RuntimeError):
    """A GPU's driver refused or a GPU failed; after a failed kernel the whole process is done."""


class ArtefactError(GsbError):
    """An artefact that is damaged, of another version, or for another CPU."""

    exit_code = ExitCode.USAGE
