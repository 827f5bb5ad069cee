"""PyTorch reference networks: training, checkpoints, export; needs torch but for `demo`."""
