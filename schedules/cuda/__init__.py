"""Words of CUDA kernels: blocks and threads, warps, tiles of bits."""
