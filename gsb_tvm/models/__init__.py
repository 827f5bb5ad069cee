"""PyTorch reference networks: training, checkpoints, export. Needs torch; nothing else imports it."""
