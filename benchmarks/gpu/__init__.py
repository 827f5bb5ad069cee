"""Timing on a GPU: our artefacts, PyTorch's models, and what the chip can do at most.

``limits`` measures the chip, ``vit`` and ``opponents`` are PyTorch's side, ``timing`` runs all in
turn. ``tests.gpu`` is the command that drives it.
"""
