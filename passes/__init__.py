"""Graph rewrites, one per file; `pipeline.py` is their sum."""
