"""Instructions of emulated programs: a plugin of QEMU, and what runs under it."""
