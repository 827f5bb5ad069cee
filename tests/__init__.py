"""Tests by room; a package, so that no other of this name is found where they run."""
