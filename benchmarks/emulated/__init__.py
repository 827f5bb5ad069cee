"""Programs around compiled networks, run by an emulator."""
