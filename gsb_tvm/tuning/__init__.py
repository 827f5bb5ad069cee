"""Finding the fastest kernels for a machine: search, isolation, measuring."""
