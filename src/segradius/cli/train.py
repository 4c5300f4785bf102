"""``segradius train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from segradius.cli.train_subject import LessonOptions, PupilOptions
from segradius.core import text
from segradius.core.allocation import keep_freed_memory
from segradius.core.declared import (
    Count,
    Decay,
    Devices,
    Given,
    Images,
    Part,
    Positive,
    Rate,
    Seed,
    Weight,
    Workers,
    only_with,
)
from segradius.core.errors import InputError
from segradius.core.screen import say, warn

if TYPE_CHECKING:
    from segradius.data import SegmentationData
    from segradius.training import Augmentation, Engine, Recipe, Watch
    from segradius.training.adversaries import Adversary

Pairs = str | float | dict[str, Any] | list[Any]


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Args:
        epochs: Passes over the training set.
        batch_size: Images in a step, over all devices together.
        optimiser: Gradient method.
        lr: Base learning rate.
        momentum: Of SGD.
        weight_decay: Of every parameter.
        clip: Largest norm of the gradient.
        heads: Factor of the learning rate outside the backbone; 10 in the recipes that start from ImageNet weights.
        schedule: Learning rate over the run.
        schedule_options: Its options, as power=0.9,warmup=100.
        aux_weight: Weight of auxiliary heads.
        temperature: τ of the cross-entropy of τ·logits, over τ: about one over the margin that a 1-Lipschitz network is
            to reach; 1 for other networks.
        class_weights: balanced weighs classes by one over their frequency.
        restored: Of a denoiser (denoised:NAME,base=CARD.yaml), weight of the mean squared error between what it makes
            of a noisy image and the image, beside the cross-entropy of the network behind it.
        ohem: Count only pixels whose true class has a probability below this, and the hardest ohem_keep.
        ohem_keep: Pixels of a batch that always count under ohem.
        average: Decay of an exponential average of the weights, which is then what is evaluated and written.
        every: Epochs between evaluations. Default: 1 under an attack, 5 elsewhere.
        precision: 32, bf16 or 16 (mixed); weights stay float32. Default: 32; under --speed fast bf16 where that is
            faster.
        speed: plain; exact, by what changes rounding alone: weights in channels_last memory, a fused optimiser, attacks
            on a twin with batch norm folded; fast, with bfloat16 too where a trial before the first step finds
            that it pays.
        compile: Compile the network by torch.compile, which takes a minute or more before the first step and changes
            rounding alone.
        seed: Of everything random.
    """

    epochs: Count = 50
    batch_size: Count = 16
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: Rate = 0.01
    momentum: Annotated[Decay, only_with(optimiser=["sgd"])] = 0.9
    weight_decay: Weight = 1e-4
    clip: Positive | None = None
    heads: Weight = 1.0
    schedule: Literal["poly", "one_cycle", "constant"] = "poly"
    schedule_options: Pairs | None = None
    aux_weight: Weight = 0.4
    temperature: Positive = 1.0
    class_weights: Literal["none", "balanced"] = "none"
    restored: Weight = 0.0
    ohem: Part | None = None
    ohem_keep: Annotated[Images, only_with(ohem=Given())] = 100_000
    average: Decay | None = None
    every: Count | None = None
    precision: Literal["32", "bf16", "16"] | None = None
    speed: Literal["plain", "exact", "fast"] = "plain"
    compile: bool = False
    seed: Seed = 0

    def recipe(self, learnt: SegmentationData, augmentation: Augmentation, defence: Adversary, every: int) -> Recipe:
        """All that decides which weights come out.

        Args:
            learnt: The images, of which classes are counted where they are to be balanced.
            augmentation: Of the images.
            defence: What is done to them then.
            every: Epochs between evaluations where none is given.
        """
        from segradius.data import class_counts
        from segradius.objectives.weightings import balanced_weights
        from segradius.training import SCHEDULES, Ohem, Optimiser, Pace, Recipe, SegmentationLoss, WeightAverage

        balanced = self.class_weights == "balanced"
        weights = balanced_weights(class_counts(learnt, readable_only=True)) if balanced else None
        mined = None if self.ohem is None else Ohem(self.ohem, self.ohem_keep)
        rates = (self.lr, self.momentum, self.weight_decay, self.clip, self.heads)
        quick = self.speed != "plain"
        fused = quick and not (self.precision == "16" and self.clip is not None)
        return Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimiser=Optimiser(self.optimiser, *rates, fused=fused),
            schedule=text.from_mapping(
                SCHEDULES[self.schedule], text.options(self.schedule_options), "schedule option"
            ),
            augmentation=augmentation,
            loss=SegmentationLoss(
                self.aux_weight, weights, mined, learnt.classes.ignore_index, self.temperature, self.restored
            ),
            adversary=defence,
            average=None if self.average is None else WeightAverage(self.average),
            precision=self.precision or ("auto" if self.speed == "fast" else "32"),
            seed=self.seed,
            every=every if self.every is None else self.every,
            pace=Pace(quick, quick, self.compile),
        )


@dataclass(frozen=True)
class DefenceOptions:
    """The defence.

    Args:
        adversary: Defence: none, fast_adt, cr_fast_adt, pgd_at, cr_pgd_at, segpgd_at or gaussian; see segradius list
            defences.
        norm: Norm of the attacks that the defence learns. Default: the one that eps names, or linf.
        eps: Their budget for images in [0, 1], as 4/255 or l2=1.5. Default: the paper's 750, 1.5 or 0.006.
        mix: Share of the images that are attacked.
        options: Further options of the defence, as steps=3,samples=0 or sigma=0.25.
        watch: Evaluate FGSM and PGD too, and warn of catastrophic overfitting; always on under an attack.
    """

    adversary: str = "none"
    norm: Literal["l1", "l2", "linf"] | None = None
    eps: float | str | None = None
    mix: Part = 1.0
    options: Pairs | None = None
    watch: bool = False

    def __post_init__(self) -> None:
        lost = self.eps is not None or self.norm is not None or self.options is not None or self.mix != 1
        if self.adversary == "none" and not self.watch and lost:
            raise InputError(
                "eps, norm, options and mix are those of a defence: give --adversary, as fast_adt, or --watch"
            )

    def make(self) -> tuple[Adversary, Watch | None]:
        """The defence, and the threat that is watched: its own where it attacks, or where it is asked for."""
        from segradius.training import Watch, make_adversary
        from segradius.training.adversaries import attacks

        (norm, budget), attacked = self._threat(), attacks(self.adversary)
        if self.norm is not None and not self.watch and not attacked:
            raise InputError(f"norm is {self.norm}, which does nothing here: {self.adversary} attacks no image")
        own = budget if attacked or not self.watch else None  # else it is that of the watch alone
        made = make_adversary(self.adversary, norm=norm, eps=own, mix=self.mix, **text.options(self.options))
        return made, Watch(norm, budget) if self.watch or attacked else None

    def _threat(self) -> tuple[str, float | None]:
        """Norm and budget, of which ``eps`` may name the norm, as in l2=1.5."""
        from segradius.threats.threat import norm_name, parse_eps

        if self.eps is None:
            return self.norm or "linf", None
        named, equals, value = str(self.eps).partition("=")
        if not equals:
            return self.norm or "linf", parse_eps(self.eps)
        name = norm_name(named.strip())
        if self.norm not in (None, name):
            raise InputError(f"eps {self.eps!r} is of another norm than {self.norm}")
        return name, parse_eps(value)


@dataclass(frozen=True)
class PlaceOptions:
    """The run.

    Args:
        out: Folder of weights and logs.
        device: auto, cpu or cuda.
        devices: Number of GPUs, or of processes on a CPU.
        workers: Processes that read images, per device.
        in_memory: Read the training set once and keep it, as far as it fits.
        memory: GiB that it may take. Default: half of what is free.
        save_every: Steps between snapshots to go on from.
        best: What the best evaluation is chosen by: accuracy of the pixels, or miou; under PGD where that is watched.
            One that says one class everywhere is never the best.
    """

    out: str
    device: str = "auto"
    devices: Devices = 1
    workers: Workers = 0
    in_memory: bool = False
    memory: Annotated[Positive | None, only_with(in_memory=[True])] = None
    save_every: Count = 100
    best: Literal["accuracy", "miou"] = "accuracy"

    def engine(self) -> Engine:
        """The machine, checked."""
        from segradius.training import Engine

        return Engine(self.device, self.devices, self.workers, self.in_memory, self.save_every, memory=self.memory)


def train(
    model: PupilOptions,
    data: LessonOptions,
    recipe: RecipeOptions,
    defence: DefenceOptions,
    run: PlaceOptions,
) -> int:
    """Train a segmentation model, or harden it against attacks.

    Writes into a folder: best.safetensors and last.safetensors with a model card best.yaml that every other command
    takes as --model, the curves as train.csv, evaluations.csv and tensorboard/, and last.pt, from which the same
    command goes on after it was stopped or killed. The defaults are those of the public recipe for PSPNet.
    """
    from segradius.training import Job, fit
    from segradius.training.records import CHECKPOINT

    learnt, judged = data.open()
    network = model.load(recipe.seed)
    adversary, watch = defence.make()
    how = recipe.recipe(learnt, data.augmentation(), adversary, every=5 if watch is None else 1)
    folder = Path(run.out)
    if recipe.speed != "plain":
        keep_freed_memory()
    _doubt(data, learnt, judged, watch)
    card = _card(model, f"segradius train --data {learnt.name}, size {data.size or 'native'}", defence.adversary, watch)
    try:
        fit(Job(network, learnt, judged, how, folder, watch, run.engine(), card=card, best=run.best))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped. What was learnt is kept in {folder / CHECKPOINT}; run the same command again to go on"
        ) from None
    _print(folder, {"accuracy": "PixAcc", "miou": "MIoU"}[run.best])
    say(f"Digest of the results: {_digest(folder)}")
    return 0


def _doubt(data: LessonOptions, learnt: SegmentationData, judged: SegmentationData, watch: Watch | None) -> None:
    """Tell what is probably a mistake in the data, or in the threat."""
    from segradius.evaluation import of_data

    threat = None if watch is None or watch.eps is None else (watch.norm, watch.eps)
    for what, part, under in (("training", learnt, threat), ("held-out", judged, None)):
        for found in of_data(part, under):
            warn(found.line if found.name == "eps" else f"{what} set: {found.line}")
    if data.split == data.held_out:
        warn(f"the held-out part is the training part, {data.split}: what is learnt by heart passes as right")


def _card(model: PupilOptions, source: str, adversary: str, watch: Watch | None) -> dict[str, Any]:
    """What the cards of the weights say."""
    from segradius.threats.threat import make_threat

    threat = "" if watch is None else f", {watch.norm} ε = {make_threat(watch.norm, watch.eps).eps:.4g}"
    described = {"normalisation": model.network.normalisation, "outputs": model.network.outputs}
    return {"model": model.model, **described, "source": f"{source}, adversary {adversary}{threat}"}


def _digest(folder: Path) -> str:
    """Of the weights of the best and the last evaluation, and of all evaluations."""
    from segradius.core.seal import seal, seal_of_tensors
    from segradius.models.checkpoints import load_state
    from segradius.training.fit import BEST, LAST
    from segradius.training.records import EVALUATION_LOG

    weights = (folder / name for name in (BEST, LAST))
    each = [seal_of_tensors(load_state(path)) for path in weights if path.exists()]
    log = folder / EVALUATION_LOG
    return seal(*each, log.read_bytes() if log.exists() else None)


def _print(folder: Path, by: str) -> None:
    """The figures of the best weights, with what they are best ``by``, and of the last ones."""
    from segradius.training.records import outcome

    known = outcome(folder)
    if known and "best" not in known:
        warn(f"no {folder / 'best.yaml'}: at every evaluation nearly all pixels were predicted as one class")
    for name, row in known.items():
        measured = {key: value for key, value in row.items() if value and key not in ("step", "epoch", "best")}
        figures = ", ".join(f"{key} {float(value):.4f}" for key, value in measured.items())
        why = f", by {by}{' under PGD' * ('pixacc_pgd' in measured)}" if name == "best" else ""
        say(f"{name} (epoch {row['epoch']}{why}): {figures}  {folder / name}.yaml")
