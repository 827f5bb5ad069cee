"""Which tests of CUDA kernels belong to the quick run: those of DeiT-Small, on one architecture."""

import re

import pytest

_QUICK = re.compile(r"deit_small|compiled.*sm_90.*\b1\]|space")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "schedules/cuda" in str(item.path) and not _QUICK.search(item.name):
            item.add_marker(pytest.mark.slow)
