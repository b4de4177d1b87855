"""Core ML packages, evaluated in PyTorch: only macOS runs them, and what was saved shall be right."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def whole(values: Any) -> list[int]:
    return [int(value) for value in (values.tolist() if isinstance(values, Tensor | np.ndarray) else values)]


def pad(x: Tensor, given: dict[str, Any]) -> Tensor:
    """By the amounts of the last two axes, which Core ML names from the first axis on and PyTorch from the last."""
    amounts = whole(given["pad"])
    return F.pad(x, amounts[-2:] + amounts[-4:-2], mode=given["mode"])


def conv(x: Tensor, given: dict[str, Any]) -> Tensor:
    if given["pad_type"] != "valid":
        top, bottom, left, right = whole(given["pad"])
        x = F.pad(x, (left, right, top, bottom))
    options = whole(given["strides"]), 0, whole(given["dilations"]), int(given["groups"])
    return F.conv2d(x, given["weight"], given.get("bias"), *options)


def conv_transpose(x: Tensor, given: dict[str, Any]) -> Tensor:
    y = F.conv_transpose2d(x, given["weight"], given.get("bias"), whole(given["strides"]))
    top, bottom, left, right = whole(given["pad"]) if given["pad_type"] == "custom" else [0] * 4
    if "output_shape" not in given:
        return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]
    height, width = whole(given["output_shape"])[-2:]
    more = max(0, top + height - y.shape[2]), max(0, left + width - y.shape[3])
    return F.pad(y, (0, more[1], 0, more[0]))[:, :, top : top + height, left : left + width]


def upsample(x: Tensor, given: dict[str, Any]) -> Tensor:
    scale = float(given["scale_factor_height"]), float(given["scale_factor_width"])
    return F.interpolate(x, scale_factor=scale, mode="nearest")


def batch_norm(x: Tensor, given: dict[str, Any]) -> Tensor:
    names = "mean", "variance", "gamma", "beta", "epsilon"
    return F.batch_norm(
        x, *(given.get(name) for name in names[:2]), given.get("gamma"), given.get("beta"), eps=float(given["epsilon"])
    )


def crop(x: Tensor, given: dict[str, Any]) -> Tensor:
    (top, bottom), (left, right) = whole(given["crop_height"]), whole(given["crop_width"])
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def cut(x: Tensor, given: dict[str, Any]) -> Tensor:
    none, ones = [0] * x.ndim, [1] * x.ndim
    begin, end, stride = whole(given["begin"]), whole(given["end"]), whole(given.get("stride", ones))
    first, last = whole(given.get("begin_mask", none)), whole(given.get("end_mask", none))
    parts = zip(begin, end, stride, first, last, strict=True)
    return x[tuple(slice(None if f else b, None if e_ else e, s) for b, e, s, f, e_ in parts)]


def expand(x: Tensor, given: dict[str, Any]) -> Tensor:
    for axis in whole(given["axes"]):
        x = x.unsqueeze(axis)
    return x


OPERATORS = {
    "add": lambda x, g: x + g["y"],
    "sub": lambda x, g: x - g["y"],
    "mul": lambda x, g: x * g["y"],
    "real_div": lambda x, g: x / g["y"],
    "pow": lambda x, g: x ** g["y"],
    "sqrt": lambda x, g: x.sqrt(),
    "square": lambda x, g: x.square(),
    "rsqrt": lambda x, g: (x + g["epsilon"]).rsqrt(),
    "relu": lambda x, g: x.relu(),
    "leaky_relu": lambda x, g: F.leaky_relu(x, float(g["alpha"])),
    "tanh": lambda x, g: x.tanh(),
    "sigmoid": lambda x, g: x.sigmoid(),
    "identity": lambda x, g: x,
    "reduce_mean": lambda x, g: x.mean(whole(g["axes"]), bool(g["keep_dims"])),
    "reduce_sum": lambda x, g: x.sum(whole(g["axes"]), bool(g["keep_dims"])),
    "reduce_max": lambda x, g: x.amax(whole(g["axes"]), bool(g["keep_dims"])),
    "conv": conv,
    "conv_transpose": conv_transpose,
    "pad": pad,
    "crop": crop,
    "slice_by_index": cut,
    "linear": lambda x, g: F.linear(x, g["weight"], g.get("bias")),
    "concat": lambda x, g: torch.cat(list(g["values"]), int(g["axis"])),
    "split": lambda x, g: (
        x.split(whole(g["split_sizes"]), int(g["axis"]))
        if "split_sizes" in g
        else x.chunk(int(g["num_splits"]), int(g["axis"]))
    ),
    "tile": lambda x, g: x.repeat(whole(g["reps"])),
    "expand_dims": expand,
    "squeeze": lambda x, g: x.squeeze(whole(g["axes"])),
    "reshape": lambda x, g: x.reshape(whole(g["shape"])),
    "transpose": lambda x, g: x.permute(whole(g["perm"])),
    "upsample_nearest_neighbor": upsample,
    "batch_norm": batch_norm,
}


def run(path: Path, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a saved package by name, for inputs by name; shapes are held against what it states."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models.utils import load_spec

    spec = load_spec(str(path))
    weights = str(path / "Data" / "com.apple.CoreML" / "weights")
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights)
    function = program.functions["main"]
    known: dict[str, Any] = dict(given)

    def value(variable: Any) -> Any:
        if isinstance(variable, list | tuple):
            return [value(one) for one in variable]
        if variable.name in known:
            return known[variable.name]
        return torch.from_numpy(np.array(variable.val)) if isinstance(variable.val, np.ndarray) else variable.val

    for operator in function.operations:
        if operator.op_type.startswith("const"):
            continue
        inputs = {name: value(one) for name, one in operator.inputs.items() if one is not None}
        inputs = {name: one for name, one in inputs.items() if one is not None}
        made = OPERATORS[operator.op_type](inputs.get("x"), inputs)
        for variable, part in zip(operator.outputs, made if len(operator.outputs) > 1 else [made], strict=True):
            assert tuple(part.shape) == tuple(variable.shape), operator.op_type
            known[variable.name] = part
    return {output.name: known[output.name] for output in function.outputs}
