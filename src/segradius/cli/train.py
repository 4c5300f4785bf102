"""``segradius train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from segradius.core import text

Pairs = str | float | dict[str, Any] | list[Any]
Range = str | list[float]


def train(
    model: str,
    data: str,
    out: str,
    weights: str | None = None,
    backbone: str | None = None,
    num_classes: int | None = None,
    normalisation: str | dict[str, Any] | None = None,
    outputs: Literal["logits", "probabilities"] | None = None,
    split: str = "train",
    held_out: str = "val",
    held_out_limit: int | None = None,
    size: str | None = None,
    epochs: int = 50,
    batch_size: int = 16,
    crop: str | None = None,
    scale: Range | None = "0.5,2.0",
    rotate: float = 10.0,
    blur: float = 0.5,
    flip: float = 0.5,
    colour: float = 0.0,
    optimiser: Literal["sgd", "adamw"] = "sgd",
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    clip: float | None = None,
    heads: float = 1.0,
    schedule: Literal["poly", "one_cycle", "constant"] = "poly",
    schedule_options: Pairs | None = None,
    aux_weight: float = 0.4,
    class_weights: Literal["none", "balanced"] = "none",
    ohem: float | None = None,
    ohem_keep: int = 100_000,
    average: float | None = None,
    adversary: str = "none",
    norm: Literal["l1", "l2", "linf"] | None = None,
    eps: float | str | None = None,
    mix: float = 1.0,
    options: Pairs | None = None,
    watch: bool = False,
    every: int | None = None,
    precision: Literal["32", "bf16", "16"] = "32",
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    workers: int = 0,
    in_memory: bool = False,
    save_every: int = 100,
) -> int:
    """Train a segmentation model, or harden it against attacks.

    Writes into a folder: best.safetensors and last.safetensors with a model card best.yaml that every other command
    takes as --model, the curves as train.csv, evaluations.csv and tensorboard/, and last.pt, from which the same
    command goes on after it was stopped or killed. The defaults are those of the public recipe for PSPNet.

    Args:
        model: Network, as for segradius attack: pspnet_light,num_classes=11, say; see segradius list models.
        data: Images and labels: camvid:PATH, voc:PATH, cityscapes:PATH, ade20k:PATH, folder:PATH or scenes.
        out: Folder of weights and logs.
        weights: File with the first weights; random ones (by seed) without.
        backbone: ImageNet weights for its trunk instead: a file, torchvision:NAME or timm:NAME, say timm:hrnet_w48.
        num_classes: Number of classes, where the model does not tell.
        normalisation: imagenet, none, or a mapping of mean and std; inside the model, never done to the data. A network
            of your own has none unless you say so.
        outputs: What the network returns, where it is not logits.
        split: Part of the data set that is learnt.
        held_out: Part that is evaluated.
        held_out_limit: Only so many images of it, spread over it.
        size: Resize images to height x width first, as in 240x320.
        epochs: Passes over the training set.
        batch_size: Images in a step, over all devices together.
        crop: Random crop, height x width. Default: the size.
        scale: Range of the random scale, as 0.5,2.0; or null.
        rotate: Largest rotation in degrees, of half the images.
        blur: Probability of a blur.
        flip: Probability of a mirror image.
        colour: Strength of a random change of brightness, contrast and saturation, as 0.4; not in the public recipes.
        optimiser: Gradient method.
        lr: Base learning rate.
        momentum: Of SGD.
        weight_decay: Of every parameter.
        clip: Largest norm of the gradient.
        heads: Factor of the learning rate outside the backbone; 10 in the recipes that start from ImageNet weights.
        schedule: Learning rate over the run.
        schedule_options: Its options, as power=0.9,warmup=100.
        aux_weight: Weight of auxiliary heads.
        class_weights: balanced weighs classes by one over their frequency.
        ohem: Count only pixels whose true class has a probability below this, and the hardest ohem_keep.
        ohem_keep: Pixels of a batch that always count under ohem.
        average: Decay of an exponential average of the weights, which is then what is evaluated and written.
        adversary: Defence: none, fast_adt, cr_fast_adt, pgd_at, cr_pgd_at, segpgd_at or gaussian.
        norm: Norm of the attacks that the defence learns. Default: the one that eps names, or linf.
        eps: Their budget for images in [0, 1], as 4/255 or l2=1.5. Default: the paper's 750, 1.5 or 0.006.
        mix: Share of the images that are attacked.
        options: Further options of the defence, as steps=3,samples=0 or sigma=0.25.
        watch: Evaluate FGSM and PGD too, and warn of catastrophic overfitting; always on under an attack.
        every: Epochs between evaluations. Default: 1 under an attack, 5 elsewhere.
        precision: 32, bf16 or 16 (mixed).
        seed: Of everything random.
        device: auto, cpu or cuda.
        devices: Number of GPUs, or of processes on a CPU.
        workers: Processes that read images, per device.
        in_memory: Read the training set once and keep it.
        save_every: Steps between snapshots to go on from.

    Returns:
        The exit status.
    """
    import torch

    from segradius.core.errors import InputError
    from segradius.data import open_data
    from segradius.models import load_model
    from segradius.models.backbones import load_backbone
    from segradius.threats.threat import make_threat, parse_eps
    from segradius.training import (
        SCHEDULES,
        Augmentation,
        Engine,
        Job,
        Ohem,
        Optimiser,
        Recipe,
        SegmentationLoss,
        Watch,
        WeightAverage,
        fit,
        make_adversary,
    )
    from segradius.training.adversaries import Attacked
    from segradius.training.logs import outcome
    from segradius.training.snapshot import CHECKPOINT

    norm, eps = _threat(norm, eps)
    if adversary == "none" and not watch and (eps is not None or options is not None or mix != 1):
        raise InputError("eps, options and mix are those of a defence: give --adversary, as fast_adt, or --watch")
    if weights is not None and backbone is not None:
        raise InputError(f"weights {weights!r} and backbone {backbone!r} exclude each other: give one")
    height_width, cut = text.size(size), text.size(crop) or text.size(size)
    learnt = open_data(data, split=split, size=height_width)
    judged = open_data(data, split=held_out, size=height_width)
    if held_out_limit is not None:
        if held_out_limit < 1:
            raise InputError(f"held_out_limit {held_out_limit}; expected at least 1")
        stride = -(-len(judged) // held_out_limit)
        judged = open_data(data, split=held_out, size=height_width, stride=stride)
    torch.manual_seed(seed)
    network = load_model(model, weights=weights, num_classes=num_classes, normalisation=normalisation, outputs=outputs)
    if backbone is not None:
        print(load_backbone(network.network, backbone))
    budget = None if eps is None else parse_eps(eps)
    defence = make_adversary(adversary, norm=norm, eps=budget, mix=mix, **text.options(options))
    attacked = isinstance(getattr(defence, "adversary", defence), Attacked)
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimiser=Optimiser(optimiser, lr, momentum, weight_decay, clip, heads),
        schedule=_schedule(SCHEDULES[schedule], text.options(schedule_options)),
        augmentation=Augmentation(cut, _range(scale), rotate, 0.5 if rotate else 0.0, blur, flip, colour=colour),
        loss=SegmentationLoss(
            aux_weight,
            _class_weights(learnt) if class_weights == "balanced" else None,
            None if ohem is None else Ohem(ohem, ohem_keep),
            learnt.classes.ignore_index,
        ),
        adversary=defence,
        average=None if average is None else WeightAverage(average),
        precision=precision,
        seed=seed,
        every=every or (1 if attacked else 5),
    )
    engine = Engine(device, devices, workers, in_memory, save_every)
    sentinel = Watch(norm, budget) if watch or attacked else None
    folder = Path(out)
    source = f"segradius train --data {learnt.name}, size {size or 'native'}, adversary {adversary}"
    threat = "" if sentinel is None else f", {norm} ε = {make_threat(norm, budget).eps:.4g}"
    card = {"model": model, "normalisation": normalisation, "outputs": outputs, "source": source + threat}
    try:
        fit(Job(network, learnt, judged, recipe, folder, sentinel, engine, card=card))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped. What was learnt is kept in {folder / CHECKPOINT}; run the same command again to go on"
        ) from None
    for name, row in outcome(folder).items():
        measured = {key: value for key, value in row.items() if value and key not in ("step", "epoch")}
        figures = ", ".join(f"{key} {float(value):.4f}" for key, value in measured.items())
        print(f"{name} (epoch {row['epoch']}): {figures}  {folder / name}.yaml")
    return 0


def _threat(norm: Any, eps: Any) -> tuple[Any, Any]:
    """Norm and budget, of which ``eps`` may name the norm, as in l2=1.5."""
    from segradius.core.errors import InputError

    named, equals, value = str(eps).partition("=")
    if not equals:
        return norm or "linf", eps
    if norm is not None and norm != named.strip():
        raise InputError(f"eps {eps!r} is of another norm than {norm}")
    return named.strip(), value


def _schedule(kind: Any, options: dict[str, Any]) -> Any:
    import inspect

    from segradius.core.errors import InputError, unknown_name

    for name in options:
        if name not in (known := inspect.signature(kind).parameters):
            raise unknown_name("schedule option", name, known)
    try:
        return kind(**options)
    except TypeError as error:
        raise InputError(f"schedule_options: {error}") from error


def _range(text: Any) -> tuple[float, float] | None:
    from segradius.core.errors import InputError

    if text is None or text == "null":
        return None
    parts = text.split(",") if isinstance(text, str) else text
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise InputError(f"scale {text!r}; expected two numbers, as in 0.5,2.0, or null") from None
    return low, high


def _class_weights(data: Any) -> tuple[float, ...]:
    from segradius.data import class_counts
    from segradius.objectives.weightings import balanced_weights

    return balanced_weights(class_counts(data))
