"""What tuning is worth: :mod:`benchmarks.tuning`."""
