"""The documented place of `record_step`, which repeats a training step of the authors' PyTorch code."""

from ugatit.translation.released import record_step

__all__ = ["record_step"]
