"""ONNX in, Relax out."""

from gsb_tvm.frontend.importer import ImportedModel, Port, load

__all__ = ["ImportedModel", "Port", "load"]
