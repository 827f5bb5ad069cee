"""Kernel families: one folder each, from the formula to the schedule per instruction set."""
