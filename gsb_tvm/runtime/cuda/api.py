"""NVIDIA's driver through NVIDIA's bindings: what it answers, as values or errors."""

from typing import Any

from gsb_tvm.dialect.errors import GpuError, UsageError

_WAY_OUT = "Run it on a machine with an NVIDIA GPU and its driver."


class Driver:
    """The driver of this machine; ``api`` has its functions, each of which answers for :meth:`do`.

    Raises
    ------
    UsageError
        There are no bindings, no driver or no GPU.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver
        except ImportError as err:
            raise UsageError(
                f"a GPU is needed, and NVIDIA's bindings are not here ({err}). "
                "Install them with pip install 'gsb-tvm[cuda]'."
            ) from err
        self.api = driver
        try:
            self.do(driver.cuInit(0))
        except GpuError as err:
            raise UsageError(
                f"a GPU is needed, and there is none to use ({err}). {_WAY_OUT}"
            ) from err
        except RuntimeError as err:  # the bindings': no library of the driver's name that it loads
            raise UsageError(f"a GPU is needed, and there is no driver. {_WAY_OUT}") from err

    def do(self, answer: tuple[Any, ...]) -> Any:
        """The value of an answer; None where there is none.

        Raises
        ------
        GpuError
            The answer is an error.
        """
        result, *values = answer
        if result != self.api.CUresult.CUDA_SUCCESS:
            _, name = self.api.cuGetErrorName(result)
            _, text = self.api.cuGetErrorString(result)
            known = f"{name.decode()}, {text.decode()}" if name and text else str(result)
            raise GpuError(f"CUDA driver: {known}")
        return values[0] if values else None

    def version(self) -> str:
        """Of CUDA, the newest that the driver knows: "13.0"."""
        number = int(self.do(self.api.cuDriverGetVersion()))
        return f"{number // 1000}.{number % 1000 // 10}"

    def count(self) -> int:
        """How many GPUs there are."""
        return int(self.do(self.api.cuDeviceGetCount()))

    def name(self, ordinal: int) -> str:
        """What NVIDIA calls a GPU."""
        device = self.do(self.api.cuDeviceGet(ordinal))
        text = self.do(self.api.cuDeviceGetName(256, device))
        return str(text.partition(b"\0")[0].decode())

    def capability(self, ordinal: int) -> tuple[int, int]:
        """Compute capability of a GPU."""
        known = self.api.CUdevice_attribute
        device = self.do(self.api.cuDeviceGet(ordinal))
        major, minor = (
            int(self.do(self.api.cuDeviceGetAttribute(attribute, device)))
            for attribute in (
                known.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                known.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        return major, minor
