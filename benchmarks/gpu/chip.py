"""What the driver says of a GPU."""

from gsb_tvm.runtime.cuda.api import Driver


def multiprocessors(ordinal: int) -> int:
    """How many a GPU has."""
    driver = Driver()
    attribute = driver.api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    device = driver.do(driver.api.cuDeviceGet(ordinal))
    return int(driver.do(driver.api.cuDeviceGetAttribute(attribute, device)))
