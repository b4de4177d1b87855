"""Checkpoints of the authors' TensorFlow code, their only official weights, as our networks.

``generator_B`` translates A to B. What is another notation is folded into the weights: the order of dimensions and of
flattened maps, the smoothing of rho, the weight plus bias by which the CAM attends. What is another network is the
setting ``release="tensorflow"``. The discriminators are not read: a run that starts with the model begins them afresh.
"""

import re
from pathlib import Path

from torch import Tensor

from ugatit.io.errors import UserError, with_options, words_of
from ugatit.io.terminal import say
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.translation.bundle import read_bundle
from ugatit.translation.released import side_of

SMOOTHING = 0.1  # what their code takes off AdaLIN's rho where it is on, as it is by default
GENERATORS = {"gen_a2b": "generator_B", "gen_b2a": "generator_A"}
PART = re.compile(r"\.(data-\d+-of-\d+|meta)$")  # how the files beside an index end
FOLDER = re.compile(r"_\d+resblock_\d+dis_[\d._]*\d(_sn)?(?P<smoothing>_smoothing)?$")  # as their code calls it


def index_of(path: Path) -> Path | None:
    """The index file of a checkpoint that is given as its folder, its prefix, or one of its files; the newest of a
    folder. None if there is none."""
    if path.name == "checkpoint" and path.is_file():  # TensorFlow's list of those beside it
        path = path.parent
    if path.is_dir():
        steps = [(int((re.findall(r"\d+", file.stem) or ["0"])[-1]), file) for file in path.glob("*.index")]
        return max(steps)[1] if steps else None
    if path.suffix == ".index":
        return path if path.exists() else None
    found = path.with_name(f"{PART.sub('', path.name)}.index")
    return found if found.exists() else None


def lacks_index(path: Path) -> bool:
    """Whether a file, or a folder, is of a checkpoint whose index is missing."""
    parts = path.glob("*.data-*-of-*") if path.is_dir() else [path] if path.is_file() else []
    return any(PART.search(part.name) for part in parts) and index_of(path) is None


def kernel(tensor: Tensor) -> Tensor:
    """H x W x in x out, or in x out, to out x in x H x W, or out x in."""
    return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T


def generator_state(state: dict[str, Tensor], config: UGATITConfig, smoothing: bool) -> dict[str, Tensor]:
    """Our names of a generator's tensors, from theirs.

    Raises:
        KeyError: one is missing.
    """
    made: dict[str, Tensor] = {}

    def layer(ours: str, theirs: str, bias: bool = True) -> None:
        made[f"{ours}.weight"] = kernel(state[f"{theirs}/kernel"])
        if bias:
            made[f"{ours}.bias"] = state[f"{theirs}/bias"]

    def norm(ours: str, theirs: str) -> None:
        made[f"{ours}.weight"], made[f"{ours}.bias"] = state[f"{theirs}/gamma"], state[f"{theirs}/beta"]

    def rho(theirs: str, less: float = 0.0) -> Tensor:
        return (state[f"{theirs}/rho"] - less).clamp(0, 1).reshape(1, -1, 1, 1)

    for i, suffix in enumerate(("", "_0", "_1")):
        layer(f"down.{i}.0", f"conv{suffix}/conv2d", bias=False)  # which the norm takes away again
        norm(f"down.{i}.1", f"ins_norm{suffix}")
    for i in range(config.blocks):
        for k in (1, 2):
            layer(f"encoder.{i}.conv{k}", f"resblock_{i}/res{k}/conv_0/conv2d", bias=False)
            norm(f"encoder.{i}.norm{k}", f"resblock_{i}/res{k}/instance_norm")
            layer(f"decoder.{i}.conv{k}", f"adaptive_resblock{i}/res{k}/conv_0/conv2d")
            less = SMOOTHING if smoothing else 0.0
            made[f"decoder.{i}.norm{k}.rho"] = rho(f"adaptive_resblock{i}/res{k}/instance_layer_norm", less)
    weight, bias = state["CAM_logit/kernel"].reshape(1, -1), state["CAM_logit/bias"].reshape(())
    made |= {"cam.avg_fc.weight": weight + bias, "cam.max_fc.weight": weight + bias, "cam.bias": bias}
    layer("cam.conv", "conv_1x1/conv2d")
    for i in (0, 1):
        layer(f"mlp.{2 * i}", f"MLP/linear_{i}/dense")
    if not config.light:  # H, W, C of the flattened maps to C, H, W
        deep, side = 4 * config.width, config.size // 4
        first = made["mlp.0.weight"].reshape(-1, side, side, deep)
        made["mlp.0.weight"] = first.permute(0, 3, 1, 2).flatten(1)
    for name in ("gamma", "beta"):
        layer(name, f"MLP/{name}/dense")
    for i in (0, 1):
        layer(f"up.{i}.conv", f"up_conv_{i}/conv2d")
        made[f"up.{i}.norm.rho"] = rho(f"layer_ins_norm_{i}")
        for part in ("gamma", "beta"):
            made[f"up.{i}.norm.{part}"] = state[f"layer_ins_norm_{i}/{part}"].reshape(1, -1, 1, 1)
    layer("out.0", "G_logit/conv2d")
    return {name: tensor.contiguous() for name, tensor in made.items()}


def config_of(state: dict[str, Tensor], size: int) -> UGATITConfig:
    """Settings of the networks as a generator's shapes tell them.

    Args:
        state: a generator's tensors, by their names.
        size: of a light model's pictures, which no shape tells.

    Raises:
        KeyError, ValueError: they are not of such a generator.
    """
    _, _, channels, width = state["conv/conv2d/kernel"].shape
    blocks = sum(bool(re.fullmatch(r"resblock_\d+/res1/conv_0/conv2d/kernel", name)) for name in state)
    pixels = state["MLP/linear_0/dense/kernel"].shape[0] // (4 * width)
    light = pixels == 1
    return UGATITConfig(
        size=size if light else side_of(pixels), channels=channels, width=width, blocks=blocks, light=light,
        release="tensorflow",
    )  # fmt: skip


def smoothed(index: Path) -> bool:
    """Whether a checkpoint was trained with smoothing, as its folder tells: ``..._6dis_1_1_10_10_1000_sn_smoothing``.
    What is taken where that is off, or not told, is said."""
    told = FOLDER.search(index.absolute().parent.name)
    if told and not told["smoothing"]:
        say(f"{index} was trained without smoothing of rho, as its folder is called.")
    if not told:
        guess = "is taken for trained with smoothing of rho, which its folder does not tell: try `smoothing=False` too."
        say(f"{index} {with_options(guess)}", "yellow")
    return told is None or told["smoothing"] is not None


def import_tensorflow(path: Path, size: int = 256, smoothing: bool = True) -> UGATIT:
    """Turn a checkpoint of the authors' TensorFlow code into our system; its discriminators stay on the meta device.

    Args:
        path: its folder, its prefix, or one of its files.
        size: side in pixels of the pictures that a light model was trained on; a full model's is found in the file.
        smoothing: whether it was trained with their option of that name, unless its folder is called as one that was
            not.

    Raises:
        UserError: it is damaged, or something else.
    """
    index = index_of(path)
    if index is None:
        raise UserError(f"{path} holds no checkpoint of TensorFlow (no .index file): check the path.")
    system: UGATIT | None = None
    try:
        for ours, theirs in GENERATORS.items():  # one after the other: a full model's two take gigabytes
            try:
                found = read_bundle(index, f"{theirs}/")
            except ValueError as error:
                raise UserError(f"The checkpoint {index} {error}: get all its files again.") from None
            state = {name.removeprefix(f"{theirs}/"): tensor for name, tensor in found.items()}
            if system is None:
                system = UGATIT.on_meta(config_of(state, size))
                smoothing = smoothing and smoothed(index)
            made = generator_state(state, system.config, smoothing)
            system.get_submodule(ours).load_state_dict(made, assign=True)
    except KeyError as error:
        raise UserError(f"The checkpoint {index} is not of the authors' networks: {error} is missing.") from None
    except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:
        raise UserError(f"The checkpoint {index} is not of the authors' networks ({words_of(error, -1)}).") from None
    assert system is not None
    return system
