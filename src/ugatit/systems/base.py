"""What a translation system is to the rest of the house: the one interface that trainer and translator know."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.optim import Optimizer
from tyro.conf import Suppress

from ugatit.io.errors import UserError
from ugatit.nn.augment import Kind
from ugatit.nn.precision import full_precision

Direction = Literal["a2b", "b2a"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def rising(given: tuple[float, float]) -> tuple[float, float]:
    """Raises ValueError if a range does not go up."""
    if given[0] >= given[1]:
        raise ValueError(f"{given[0]:g} is not below {given[1]:g}")
    return given


Range = Annotated[tuple[Finite, Finite], AfterValidator(rising)]  # the samples of a picture file that become -1 and 1
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
WAYS: dict[Direction, str] = {"a2b": "A to B", "b2a": "B to A"}  # what people call directions
BEATEN = 0.02  # a discriminator's loss below which it hardly errs; guessing gives 0.5 or more
LONG = 100_000  # steps of a run that serves as an example


def opposite(direction: Direction) -> Direction:
    """The way back."""
    return "b2a" if direction == "a2b" else "a2b"


class Clock(NamedTuple):
    """Where training is, and in which of the processes that train the same networks together.

    Several processes are one with the larger batch: what a system draws at random it draws for the pictures of all,
    from torch's generator, which is seeded alike in each; and what it keeps of its pictures it keeps of all.
    """

    step: int  # counted from 0
    steps: int  # the whole run's
    rank: int = 0  # of this process
    processes: int = 1

    @property
    def share(self) -> float:
        """Of the run that is done, in [0, 1)."""
        return self.step / self.steps

    def linear_decay(self, start: float) -> float:
        """1 for the first ``start`` of the run, then falling linearly to 0 at its end."""
        return min(1.0, (1 - self.share) / (1 - start)) if start < 1 else 1.0

    def own(self, everyone: Tensor) -> Tensor:
        """This process's rows of what all processes have in common."""
        return everyone.chunk(self.processes)[self.rank]

    def everyone(self, own: Tensor) -> Tensor:
        """The rows of all processes, as many of each."""
        if self.processes == 1:
            return own
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(self.processes)]
        torch.distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    def noise(self, like: Tensor, *shape: int) -> Tensor:
        """A row of N(0, 1) of a shape for each row of ``like``, on its device and of its type."""
        rows = self.processes * len(like)
        return self.own(torch.randn(rows, *shape, device=like.device, dtype=like.dtype))


class Update(NamedTuple):
    """One optimiser update that a system asks the trainer for."""

    optimizers: tuple[str, ...]  # which of `System.optimizers` step
    loss: Tensor  # scalar
    terms: dict[str, Tensor]  # scalars for the log, unweighted
    clip: float | None = None  # largest norm of the gradient; longer ones are shortened to it


Terms = dict[str, dict[str, Tensor]]  # scalars by kind, such as "cycle", then by which, such as "a"; "" for the only


def weighted(optimizers: tuple[str, ...], network: str, terms: Terms, weights: dict[str, float]) -> Update:
    """The update that minimises a sum of terms, each times the weight of its kind; logged as ``network/kind_which``."""
    loss = torch.stack([weights[kind] * term for kind, parts in terms.items() for term in parts.values()]).sum()
    named = {
        f"{network}/{kind}_{which}" if which else f"{network}/{kind}": term
        for kind, parts in terms.items()
        for which, term in parts.items()
    }
    return Update(optimizers, loss, named)


def toward(prediction: Tensor, target: float) -> Tensor:
    """Least squares to a constant (Mao et al., 2017): the mean of ``(prediction - target)^2``."""
    return (full_precision(prediction) - target).square().mean()


def toward_each(predictions: list[Tensor], target: float) -> Tensor:
    """`toward` for each scale of a discriminator, added up."""
    return torch.stack([toward(prediction, target) for prediction in predictions]).sum()


def cross_entropy(logit: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of logits to a constant, from 0 to 1."""
    logit = full_precision(logit)
    return F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, target))


def l1(x: Tensor, y: Tensor) -> Tensor:
    """The mean of ``|x - y|``."""
    return F.l1_loss(full_precision(x), full_precision(y))


def mean_square(x: Tensor) -> Tensor:
    """The KL divergence of N(x, 1) to N(0, 1), a number of x, times two."""
    return full_precision(x).square().mean()


class Translation(NamedTuple):
    """N translated pictures."""

    image: Tensor  # N x channels x H x W in [-1, 1]
    heatmap: Tensor | None  # attention, N x 1 x h x w, not scaled; None if the system has none

    def map(self, change: Callable[[Tensor], Tensor]) -> "Translation":
        """The same with ``change`` applied to both tensors."""
        return Translation(change(self.image), None if self.heatmap is None else change(self.heatmap))

    def each(self, count: int = 1) -> Iterator["Translation"]:
        """One translation after the other, or ``count`` at a time."""
        images = self.image.split(count)
        heatmaps = [None] * len(images) if self.heatmap is None else self.heatmap.split(count)
        return map(Translation, images, heatmaps)


@dataclass(frozen=True)
class Recipe:
    """How long and on what a system is trained; the defaults are the paper's (appendix B.2)."""

    steps: Annotated[int, Field(ge=1)] = 1_000_000
    """The number of steps of the whole run."""
    batch: Annotated[int, Field(ge=1)] = 1
    """How many pictures of each domain a step has, in each process."""
    enlarge: Annotated[float, Field(ge=1, le=4)] = 286 / 256
    """The shorter side is resized to this times the size before the random crop."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The probability that a training picture is flipped horizontally."""
    turn: Annotated[float, Field(ge=0, le=180)] = 0.0
    """A training picture is turned by up to so many degrees, either way."""
    scale: Annotated[float, Field(ge=0, le=1)] = 0.0
    """A training picture is made up to so much larger or smaller: 0.2 is from 1/1.2 to 1.2 of its size."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Brightness, contrast and saturation of a training picture are changed by up to this share, either way."""
    diff_augment: tuple[Kind, ...] = ()
    """DiffAugment, for few pictures: color, translation and cutout change what discriminators see, real and translated
    pictures alike."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The decay of the running average of the generators' weights, which previews and translation use instead of the
    last weights. It is over the last tenth of the steps at most. 0 keeps none."""


@dataclass(frozen=True)
class Faces:
    """How faces were cut out of a domain's pictures before training, which is done again when others are translated."""

    detector: Literal["photo", "drawn", "file"] = "photo"
    """What found them, as in `ugatit.data.faces.detector`; "file" is one that the data set's maker had."""
    margin: Annotated[float, Field(ge=0, le=2)] = 0.3
    """What was added to a face's square at every side, as a share of it."""
    align: bool = False
    """Whether they were turned upright by their eyes."""


@dataclass(frozen=True)
class SystemConfig:
    """Hyper-parameters that every method has."""

    size: Annotated[int, Field(ge=32, le=4096, multiple_of=4)] = 256
    """The side of the training pictures in pixels, a multiple of 4 from 32 up."""
    channels: Annotated[int, Field(ge=1, le=8)] = 3
    """The channels of the pictures: 1 for greyscale, 3 for colour, 2 and 4 with transparency. Up to 8 for files that
    have as many bands."""
    channels_b: Annotated[int, Field(ge=1, le=8)] | None = None
    """The same for the pictures of domain B, if it is not --channels. Not every method can have that."""
    range: Range | Literal["auto", "type"] = "type"
    """The samples of the pictures that become black and white: LOW HIGH; auto takes the lowest and the highest of each
    domain's pictures. type goes by the files, 0 to 255 with 8 bits and 0 to 65535 with 16; for floats and 32 bits, of
    which files do not tell, it is auto."""
    range_b: Range | Literal["auto", "type"] | None = None
    """The same for the pictures of domain B, if it is not --range."""
    faces_a: Annotated[Faces | None, Suppress] = None
    """How faces were cut out of domain A's pictures, as the data set tells; None if it does not."""
    faces_b: Annotated[Faces | None, Suppress] = None
    """The same for the pictures of domain B."""
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """The channels of the first layer of every network."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Adam's decay of the gradient's average."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Adam's decay of the squared gradient's average."""


class Samples(NamedTuple):
    """How pictures are read."""

    channels: int = 3  # 1 is grey, 3 is colour, others are a file's bands
    range: Range | None = None  # what becomes -1 and 1; None where the type of the samples decides
    floats: Range | None = None  # the same for floats and 32 bits alone, whose type does not tell


COLOUR = Samples()


def samples_of(config: Any, domain: str) -> Samples:
    """How the pictures of domain "a" or "b" are read; by their type if a method's configuration has no ranges."""
    given, given_b = getattr(config, "range", "type"), getattr(config, "range_b", None)
    chosen = given_b if domain == "b" and given_b is not None else given
    return Samples(channels_of(config)[domain == "b"], None if isinstance(chosen, str) else chosen)


def channels_of(config: Any) -> tuple[int, int]:
    """The channels of domain A's pictures, and of domain B's."""
    return config.channels, getattr(config, "channels_b", None) or config.channels


def faces_of(config: Any, domain: str) -> Faces | None:
    """How faces were cut out of the training pictures of domain "a" or "b"; None if that is not known."""
    return getattr(config, f"faces_{domain}", None)


def need_equal_channels(config: Any, why: str) -> None:
    """Raises UserError if the domains' pictures have different channels, which a method, for a reason that is given as
    a sentence, cannot have."""
    a, b = channels_of(config)
    if a != b:
        raise UserError(
            f"`channels={a}` and `channels_b={b}`: {why}: leave out `channels_b` (grey pictures can be read in colour, "
            "and colour in grey), or take CycleGAN with `identity_weight=0`, UNIT, MUNIT or DRIT."
        )


def need_photographs(config: Any, why: str) -> None:
    """Raises UserError if pictures are neither grey nor in colour, which a method, for a reason that is given as a
    sentence, cannot have."""
    if config.channels not in (1, 3):
        raise UserError(f"`channels={config.channels}`: {why}: take 1 or 3, or another system.")


class Preset(NamedTuple):
    """A named starting point for `ugatit train`."""

    model: Any  # an instance of the system's Config
    recipe: Recipe


class System(nn.Module, ABC):
    """A method: its networks are its submodules, the rest is below. It never touches devices, files or logs."""

    Config: ClassVar[type]
    """Frozen dataclass of the method's hyper-parameters, with at least `size` and `channels`, as in `SystemConfig`."""
    presets: ClassVar[dict[str, Preset]]
    translators: tuple[str, ...]
    """Names of the submodules that translation needs; the others are there for training only."""
    remembered: ClassVar[tuple[str, ...]] = ()
    """Names of the submodules that hold past translations of training pictures, which a run needs to go on and no model
    folder is given."""
    directions: tuple[Direction, ...] = DIRECTIONS

    cycle: ClassVar[int] = 1
    """Steps after which what a step does repeats."""
    phases: tuple[float, ...] = (0.0,)
    """Shares of the run at which a step begins to do something else, the beginning among them."""
    recordable: ClassVar[bool] = False
    """Whether steps of one kind do the same on the device, so that one may be recorded and played again. Then a step
    depends on the clock through its noise, `cycle` and `phases` alone, and on no choice made outside of the device."""

    styles: ClassVar[int] = 0
    """Numbers that decide, beside the picture, how it is translated; 0 where it alone decides."""

    config: Any

    @classmethod
    def on_meta(cls, config: Any) -> Self:
        """The method's networks without numbers, to be filled, or counted."""
        with torch.device("meta"):
            return cls(config)

    @property
    def any_size(self) -> bool:
        """Whether it translates pictures of any size that is a multiple of 4, or only of `config.size`."""
        return True

    @property
    def judges(self) -> list[nn.Module]:
        """The discriminators that look at pictures, N x channels x H x W."""
        return [network for name, network in self.named_children() if name.startswith("disc")]

    def learned(self) -> dict[str, Tensor]:
        """The state without what is only `remembered`."""
        return {name: value for name, value in self.state_dict().items() if name.split(".")[0] not in self.remembered}

    def parameters_by(self, group: Callable[[str], str]) -> dict[str, list[nn.Parameter]]:
        """All parameters by what ``group`` makes of their names."""
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            groups.setdefault(group(name), []).append(parameter)
        return groups

    @abstractmethod
    def init_weights(self) -> None:
        """Draw fresh weights from the global random generator."""

    @abstractmethod
    def optimizers(self) -> dict[str, Optimizer]:
        """Fresh optimisers by name, at their base learning rate."""

    @abstractmethod
    def lr_factor(self, clock: Clock) -> float:
        """What the base learning rates are multiplied by at this step."""

    @abstractmethod
    def updates(self, real_a: Tensor, real_b: Tensor, clock: Clock) -> Iterator[Update]:
        """One training step as the updates it consists of, in order.

        The trainer makes each update before it asks for the next, so a later loss sees the updated weights; only the
        parameters of the update's optimisers receive its gradient.

        Args:
            real_a, real_b: pictures of the two domains, N x channels x size x size in [-1, 1].
            clock: where training is; noise is drawn through it.
        """

    def kinds_of_steps(self) -> list[tuple[Clock, float]]:
        """One step of each kind that a long run has, and the share of the run's steps that are of this kind."""
        starts = [start for start in self.phases if start < 1]
        kinds = []
        for start, end in zip(starts, [*starts[1:], 1.0], strict=True):
            first = (int(start * LONG) // self.cycle + 1) * self.cycle
            kinds += [(Clock(first + i, LONG), (end - start) / self.cycle) for i in range(self.cycle)]
        return kinds

    def kind_of_step(self, clock: Clock) -> tuple[int, int]:
        """What two steps that do the same, to other numbers, have in common."""
        return clock.step % self.cycle, sum(clock.share >= start for start in self.phases)

    def signs(self, means: dict[str, float]) -> list[str]:
        """What mean losses, by their names in the log, say of a training that leads nowhere: sentences, with what
        helps."""
        beaten = [name for name, mean in means.items() if name.startswith("disc/adv") and mean < BEATEN]
        if not beaten:
            return []
        return [
            "The discriminators tell translated pictures from real ones nearly without error, which leaves the "
            "generators nothing to go by: try `diff_augment`, more pictures, or a lower `lr`."
        ]

    def after_update(self, update: Update) -> None:
        """Called after the optimisers of ``update`` have stepped."""

    @abstractmethod
    def translate(self, x: Tensor, direction: Direction) -> Translation:
        """Translate pictures N x channels x H x W in [-1, 1].

        A system with styles also takes ``style``, N x styles or 1 x styles; drawn from N(0, 1) if not given.
        """

    def style_of(self, x: Tensor, direction: Direction) -> Tensor:
        """The styles, N x styles, of pictures of the target domain; only for a system that has styles."""
        raise NotImplementedError

    def attention(self, x: Tensor, direction: Direction) -> dict[str, tuple[Tensor, Tensor]]:
        """Where the networks look while they translate pictures N x channels x H x W in [-1, 1].

        Returns:
            By name: the pictures that a network saw, N x channels x H x W, and its attention, N x 1 x h x w.
        """
        heatmap = self.translate(x, direction).heatmap
        return {} if heatmap is None else {"attention": (x, heatmap)}
