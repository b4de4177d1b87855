"""Models for telephones: Core ML (Apple) and LiteRT, which was TensorFlow Lite, written by their makers' converters.

Both take one picture of the model's own size, 1 x channels x size x size in [-1, 1], to its translation and, where the
system has one, its attention. The converters know fewer operators than ONNX, so the networks are traced in the paper's
plain forms, and what is left over is written in simpler terms.
"""

import contextlib
import io
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.io.errors import package
from ugatit.nn.switch import fast_forms

Mobile = Literal["coreml", "litert"]
SUFFIXES: dict[Mobile, str] = {"coreml": ".mlpackage", "litert": ".tflite"}
OUTPUTS = ("translation", "attention")
aten = torch.ops.aten


# Operators in terms of simpler ones; NotImplemented leaves one as it is


def var_mean(x: Tensor, dim: list[int], *, correction: int = 1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Variance and mean, of which Core ML and LiteRT have the mean alone."""
    mean = x.mean(dim, True)
    count = math.prod(x.shape[d] for d in dim)
    var = (x - mean).square().mean(dim, True)
    if correction:
        var = var * (count / (count - correction))
    return (var, mean) if keepdim else (var.squeeze(dim), mean.squeeze(dim))


def std_mean(x: Tensor, dim: list[int], **options: Any) -> tuple[Tensor, Tensor]:
    """Deviation and mean, likewise."""
    var, mean = var_mean(x, dim, **options)
    return var.sqrt(), mean


def mean_of(x: Tensor, dim: list[int], keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """A mean in another type: the conversion first."""
    return NotImplemented if dtype is None else x.to(dtype).mean(dim, keepdim)


def sum_of(x: Tensor, dim: list[int], keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    """A sum in another type: the conversion first."""
    return NotImplemented if dtype is None else x.to(dtype).sum(dim, keepdim)


def split(x: Tensor, sizes: list[int], dim: int = 0) -> list[Tensor]:
    """Parts of given sizes as slices; a single one is a tensor of its own."""
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [x.narrow(dim, end - n, n) if len(sizes) > 1 else x + 0 for end, n in zip(ends, sizes, strict=True)]


def split_evenly(x: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    """Parts of one size as slices; the last may be smaller."""
    return split(x, [min(size, x.shape[dim] - start) for start in range(0, x.shape[dim], size)], dim)


def conv_transpose(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], extra: list[int], *_: Any
) -> Tensor:
    """As a convolution of the picture with zeros between its pixels; for square kernels and steps, and one group."""
    (n, c, height, width), step = x.shape, stride[0]
    x = F.pad(x.unsqueeze(3), (0, 0, 0, step - 1)).reshape(n, c, height * step, width)
    x = F.pad(x.unsqueeze(4), (0, step - 1)).reshape(n, c, height * step, width * step)
    left = weight.shape[2] - 1 - padding[0]
    right = left + extra[0] - (step - 1)
    return F.conv2d(F.pad(x, (left, right, left, right)), weight.flip(2, 3).transpose(0, 1).contiguous(), bias)


SIMPLER: dict[Any, Callable[..., Any]] = {
    aten.var_mean.correction: var_mean,
    aten.std_mean.correction: std_mean,
    aten.std_mean.dim: lambda x, dim, unbiased=True, keepdim=False: std_mean(
        x, dim, correction=int(unbiased), keepdim=keepdim
    ),
    aten.mean.dim: mean_of,
    aten.sum.dim_IntList: sum_of,
    aten.new_ones.default: lambda x, size, **_: torch.ones(size, dtype=x.dtype),
    aten.new_zeros.default: lambda x, size, **_: torch.zeros(size, dtype=x.dtype),
    aten.addcmul.default: lambda x, a, b, *, value=1: x + a * b * value,
    aten.split_with_sizes.default: split,
}
SIMPLER_FOR_LITERT = SIMPLER | {aten.conv_transpose2d.input: conv_transpose, aten.split.Tensor: split_evenly}


def traced(graph: nn.Module, given: tuple[Tensor, ...], simpler: dict[Any, Callable[..., Any]]) -> Any:
    """A network as PyTorch's exported program, in the operators that a converter knows."""
    with torch.no_grad(), fast_forms(False):
        return torch.export.export(graph.eval(), given).run_decompositions(simpler)


# The two


def write_coreml(graph: nn.Module, given: tuple[Tensor, ...], names: tuple[str, ...], path: Path) -> float | None:
    """Write a network as a Core ML package in float32.

    Args:
        graph: from the inputs to the translation and perhaps its attention.
        given: an example of the inputs.
        names: of the inputs.
        path: of the package, which ends with .mlpackage.

    Returns:
        The largest difference of its results from the network's; None where Core ML cannot run, which is all but macOS.

    Raises:
        UserError: coremltools is not installed.
    """
    with quiet():
        ct = package("coremltools", "coreml")
        with torch.no_grad():
            wanted = graph(*given)
        made = ct.convert(
            traced(graph, given, SIMPLER),
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=sys.platform != "darwin",
            inputs=[ct.TensorType(name=name, shape=x.shape) for name, x in zip(names, given, strict=True)],
            outputs=[ct.TensorType(name=name) for name in OUTPUTS[: len(wanted)]],
        )
        made.save(str(path))
        if sys.platform != "darwin":
            return None
        found = made.predict({name: x.numpy() for name, x in zip(names, given, strict=True)})
    parts = zip(OUTPUTS, wanted, strict=False)
    return max((torch.from_numpy(found[name]) - part).abs().max().item() for name, part in parts)


def write_litert(graph: nn.Module, given: tuple[Tensor, ...], names: tuple[str, ...], path: Path) -> float:
    """Write a network as a LiteRT file in float32, with inputs args_0 and so on, and outputs output_0 and so on.

    Args:
        graph, given, names, path: as `write_coreml` takes them; the path ends with .tflite.

    Returns:
        The largest difference of its results from the network's.

    Raises:
        UserError: litert-torch is not installed.
    """
    with quiet():
        litert = package("litert_torch", "litert")
        interpreter = package("ai_edge_litert.interpreter", "litert")
        with torch.no_grad():
            wanted = graph(*given)
        litert.convert(traced(graph, given, SIMPLER_FOR_LITERT).module(), given).export(str(path))
        runner = interpreter.Interpreter(str(path), num_threads=1).get_signature_runner()
        found = runner(**{f"args_{k}": x.numpy() for k, x in enumerate(given)})
    return max(abs(found[f"output_{k}"] - part.numpy()).max().item() for k, part in enumerate(wanted))


@contextlib.contextmanager
def quiet():
    """Within this block nobody hears what the converters tell of themselves."""
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield


WRITERS: dict[Mobile, Callable[..., float | None]] = {"coreml": write_coreml, "litert": write_litert}
