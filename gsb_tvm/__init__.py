"""Compiler for binary vision transformers: ONNX in, exact packed bit operations out."""

__version__ = "0.1.0"
