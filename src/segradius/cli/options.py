"""Options that commands share: what is asked, of which images, where the results go; and the grammar of budgets.

A command takes a group of options as one argument, and `segradius.cli.parser` makes a flag of each of its fields: the
docstring of a group is the text of ``--help``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from segradius.core import text
from segradius.core.declared import Budget, Classes, Count, Images, Inside, Range, Seed
from segradius.core.errors import InputError
from segradius.core.screen import note

if TYPE_CHECKING:
    from segradius.core.contracts import Seen
    from segradius.data import SegmentationData
    from segradius.evaluation import DataChoice, ModelChoice
    from segradius.models import Segmenter

MASKS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True)
class NetworkOptions:
    """The network.

    Args:
        weights: File with the network's weights, .safetensors or a checkpoint that holds tensors only, or the list of
            its shards; FILE,key=NAME for one of several sets; of a training the first ones, random (by seed) without.
        num_classes: Number of classes, where the model does not tell.
        normalisation: imagenet, none, or a mapping of mean and std; inside the model, never done to the data. A network
            of your own has none unless you say so.
        outputs: What the network returns, where it is not logits, or a served target, where it is not probabilities:
            sigmoid or binary_logit for one yes/no channel, multilabel or multilabel_logits for several, sigmoids for
            one a class of which one is true, masked_logits where classes that cannot be have −inf.
        threshold: A yes/no channel says yes where its probability is above this. Default: 0.5.
        channels: Which channels of the output count, from 0, as 0,2. Default: all.
        output: Which entry is meant where the network returns several: an index, a name, or several with dots between.
        allow_download: Let libraries fetch what is not on this machine: weights, configurations. Nothing goes out
            otherwise.
    """

    weights: str | None = None
    num_classes: Classes | None = None
    normalisation: str | dict[str, Any] | None = None
    outputs: (
        Literal[
            "logits",
            "masked_logits",
            "probabilities",
            "sigmoids",
            "sigmoid",
            "binary_logit",
            "multilabel",
            "multilabel_logits",
            "scores",
            "labels",
        ]
        | None
    ) = None
    threshold: Inside | None = None
    channels: str | int | list[int] | None = None
    output: str | int | None = None
    allow_download: bool = False

    @property
    def decoded(self) -> dict[str, Any]:
        """Threshold, channels and entry of the output, as an experiment describes them."""
        from segradius.models.decoding import as_channels

        channels = None if self.channels is None else as_channels(self.channels)
        output = None if self.output is None else str(self.output)
        return {"threshold": self.threshold, "channels": channels, "output": output}


@dataclass(frozen=True)
class ModelOptions:
    """The model or target.

    Args:
        model: Network: demo, SOURCE:NAME as torchvision:fcn_resnet50, or package.module:callable, which runs that
            code, each with ,key=value arguments, or the path of a YAML card, which may name code too; see segradius
            list models.
        target: In place of a model, what is asked for scores only: onnx:FILE, tflite:FILE,
            oip:http://HOST:PORT/v2/models/NAME, each with ,key=value options, or anything that model takes. See
            segradius list targets.
        network: See `NetworkOptions`.
        answers: Make the target's answers as a deployed one's: digits=3 (rounded), top=2 (only the two best classes),
            labels, or several with commas.
        input: Make of the images what a deployed target would: uint8, jpeg=90.
        budget: Images that a target may answer in all, earlier runs in the folder included. Default: no limit.
        dtype: Of the network's weights and so of what it computes: float32, or bfloat16, which is quicker on some
            processors and has other numbers. Default: its own.
        denoiser: What every image goes through before the network sees it: a card that segradius train wrote of a
            denoiser, blur,width=1, or package.module:callable, which runs that code; see segradius list denoisers.
    """

    model: str | None = None
    target: str | None = None
    network: NetworkOptions = field(default_factory=NetworkOptions)
    answers: str | None = None
    input: str | None = None
    budget: Budget | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    denoiser: str | None = None

    @property
    def text(self) -> str:
        """The model or the target."""
        return self.model or self.target or ""

    def check(self, classes: Collection[str]) -> None:
        """Raise `InputError` unless it is a model or a target, with options that are for it.

        Args:
            classes: Names of the data's classes; a target of such a name is something to aim at.
        """
        if self.target is not None and _is_aim(self.target, classes):
            raise InputError(
                f"--target {self.target!r}: a target is what is attacked, as onnx:FILE or oip:URL; to aim at a class, "
                f"use --aim {self.target}"
            )
        if (self.model is None) == (self.target is None):
            given = "both were given" if self.model else "neither was given"
            raise InputError(
                f"give --model (a network, with its gradients) or --target (asked for scores only): {given}"
            )
        if self.model is not None and (source := target_of(self.model)) is not None:
            raise InputError(
                f"--model {self.model!r}: {source} is a target, asked for scores only: give --target {self.model}"
            )
        for name in ("answers", "input", "budget"):
            if self.model is not None and getattr(self, name) is not None:
                raise InputError(f"{name} is for --target, which is asked for scores only; --model was given")
        for name in ("dtype", "denoiser"):
            if self.target is not None and getattr(self, name) is not None:
                raise InputError(f"{name} is for --model; --target was given")

    def open(self, data: SegmentationData, device: str, seed: int) -> tuple[Seen, ModelChoice]:
        """What is asked, and how an experiment describes it.

        Args:
            data: The images it will be asked about.
            device: As `RunOptions` takes it.
            seed: Of a network without weights.

        Raises:
            InputError: See `check`; or it cannot be opened.
        """
        from segradius.evaluation import ModelChoice, open_choice
        from segradius.models import fingerprint

        self.check(data.classes.names)
        it, target = self.network, self.target is not None
        colours = None if it.normalisation is None else str(it.normalisation)
        described = (it.weights, it.num_classes, colours, it.outputs, "", target, self.answers, self.input)
        choice = ModelChoice(self.text, *described, self.dtype, denoiser=self.denoiser, **it.decoded)
        how: Any = {"device": device_name(device), "seed": seed, "budget": self.budget}
        seen = open_choice(choice, **how, allow_download=it.allow_download)
        if not target:
            return seen, replace(choice, fingerprint=fingerprint(cast("Segmenter", seen)))
        from segradius import targets

        mark = targets.fingerprint(cast("targets.Target", seen))
        return seen, replace(choice, spec=targets.lasting(self.text), fingerprint=mark)


@dataclass(frozen=True)
class DataOptions:
    """The images.

    Args:
        data: Images: scenes, or NAME:PATH as voc:PATH; see segradius list data. python:MODULE:OBJECT runs that code.
        split: Part of the data set; its evaluation part by default.
        limit: Only the first so many images.
        stride: Only every stride-th image, as neighbouring frames of a video look alike.
        size: Resize to height x width, as in 240x320.
        protocol: Named preparation of images, instead of size.
        labels: given by the data, or predicted: what the model itself makes of each unattacked image, for images
            without masks (images:PATH). Every accuracy is then a stability.
        order: given by the data, or spread: one of which limit takes images from everywhere, and more of them with a
            larger limit, which goes on in the same folder.
        void: What pixels without a class count as: ignore for nothing, or background, as the class of that name or a
            new first one. Default: as the protocol has it, else ignore.
    """

    data: str
    split: str | None = None
    limit: Images | None = None
    stride: Images = 1
    size: str | None = None
    protocol: str | None = None
    labels: Literal["given", "predicted"] = "given"
    order: Literal["given", "spread"] = "given"
    void: Literal["ignore", "background"] | None = None

    @property
    def choice(self) -> DataChoice:
        """How an experiment describes them."""
        from segradius.evaluation import DataChoice

        given = vars(self) | {"size": text.size(self.size)}
        return DataChoice(given.pop("data"), **given)

    def open(self) -> SegmentationData:
        """The images, after a line on how many there are; raises `InputError` where there are none of that name."""
        from segradius.data import counted
        from segradius.evaluation import open_images

        opened = open_images(self.choice)
        note(counted(opened))
        return opened


@dataclass(frozen=True)
class RunOptions:
    """The run.

    But for the seed, and speed fast, nothing here changes a number.

    Args:
        out: Folder of the report.
        seed: Seed of all random numbers, which are drawn for each image by its id.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Images at a time, or noisy copies of one; changes no result but by rounding. auto: as many as fit
            into memory and pay, found by a trial of seconds. Default: 8 images; 4 copies on a CPU, 32 elsewhere.
        checkpoint_seconds: Seconds between checkpoints of a black-box attack or of an image's votes; 0 for one every
            round or pass.
        figures: Number of images in the picture.
        overwrite: Replace what another experiment left in the folder.
        fail_on_set_aside: End with exit status 3 where an image was set aside; the report is written all the same.
        speed: plain; exact: passes made cheaper by what changes nothing but rounding (batch norm folded,
            channels-last), found by a trial of seconds; fast: gradients in reduced precision too. Every verdict is the
            plain model's.
        compile: Try torch.compile too, whose warm-up may take minutes.
    """

    out: str
    seed: Seed = 0
    device: str = "auto"
    batch_size: Count | Literal["auto"] | None = None
    checkpoint_seconds: Annotated[float, Range("[0, 1e9]")] = 30.0
    figures: Annotated[int, Range("[0, 1000]")] = 2
    overwrite: bool = False
    fail_on_set_aside: bool = False
    speed: Literal["plain", "exact", "fast"] = "plain"
    compile: bool = False

    @property
    def together(self) -> int | None:
        """Images or copies, where a number was given."""
        return None if self.batch_size == "auto" else self.batch_size

    @property
    def folder(self) -> Path:
        """Of the report."""
        return Path(self.out)

    def described(self, chosen: ModelChoice) -> ModelChoice:
        """The model as an experiment describes it, with the speed that changes numbers."""
        return replace(chosen, speed="fast") if self.speed == "fast" else chosen


@dataclass(frozen=True)
class Subject:
    """A model and images that are open, with their descriptions in an experiment.

    Attributes:
        seen: What is asked.
        model: Its description.
        data: The images.
        choice: Theirs.
    """

    seen: Seen
    model: ModelChoice
    data: SegmentationData
    choice: DataChoice


def open_subject(data: DataOptions, model: ModelOptions, run: RunOptions) -> Subject:
    """Model and images, opened; raises `InputError` where one cannot be."""
    choice, opened = data.choice, data.open()
    seen, chosen = model.open(opened, run.device, run.seed)
    return Subject(seen, run.described(chosen), opened, choice)


def device_name(asked: str) -> str:
    """``asked``, save that ``"auto"`` is a GPU where there is one."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def target_of(model: str) -> str | None:
    """The word before the colon where it is that of a served target."""
    from segradius.targets.target import TARGETS

    source, colon, _ = model.partition(":")
    return source if colon and source.isidentifier() and source in TARGETS else None


def _is_aim(asked: str, classes: Collection[str]) -> bool:
    """Whether a text was probably meant for ``--aim``: random, a class by name or number, or a mask image."""
    named = asked.casefold() in {"random", *(name.casefold() for name in classes)}
    return named or asked.lstrip("-").isdigit() or Path(asked).suffix.lower() in MASKS
