"""Artefacts for CUDA: kernels as launches of device functions, compiled ahead of time."""
