"""How cost grows: networks that differ from a base in one number, timed in turn."""
