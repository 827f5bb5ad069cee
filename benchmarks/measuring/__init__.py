"""What benchmarks share: samples, the machine, arguments, where figures go, pictures."""
