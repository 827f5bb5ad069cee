"""What the driver says of a GPU."""

from gsb_tvm.runtime.cuda.driver import Device


def multiprocessors(device: Device) -> int:
    """How many there are."""
    from cuda.bindings import driver

    device.synchronize(0)  # initialises the driver, whatever the device is
    attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    result, count = driver.cuDeviceGetAttribute(attribute, device.ordinal)
    if result != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA driver: {result}")
    return int(count)
