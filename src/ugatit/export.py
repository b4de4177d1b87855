"""The documented place of `OnnxTranslator`, which translates with the ONNX files that ``ugatit export`` wrote."""

from ugatit.translation.export import OnnxTranslator

__all__ = ["OnnxTranslator"]
