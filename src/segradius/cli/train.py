"""``segradius train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from segradius.cli import parsing

Pairs = str | float | dict[str, Any] | list[Any]
Range = str | list[float]


def train(
    model: str,
    data: str,
    out: str,
    weights: str | None = None,
    backbone: str | None = None,
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
    norm: Literal["l1", "l2", "linf"] = "linf",
    eps: float | str | None = None,
    mix: float = 1.0,
    options: Pairs | None = None,
    watch: bool = False,
    every: int = 5,
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
        norm: Norm of the attacks that the defence learns.
        eps: Their budget for images in [0, 1], as 4/255. Default: the paper's 750, 1.5 or 0.006.
        mix: Share of the images that are attacked.
        options: Further options of the defence, as steps=3,samples=0 or sigma=0.25.
        watch: Evaluate FGSM and PGD too, and warn of catastrophic overfitting; always on under an attack.
        every: Epochs between evaluations.
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

    from segradius.data import open_data
    from segradius.errors import InputError
    from segradius.models import load_model
    from segradius.models.backbones import load_backbone
    from segradius.threats import parse_eps
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

    if weights is not None and backbone is not None:
        raise InputError(f"weights {weights!r} and backbone {backbone!r} exclude each other: give one")
    height_width, cut = parsing.size(size), parsing.size(crop) or parsing.size(size)
    learnt = open_data(data, split=split, size=height_width)
    judged = open_data(data, split=held_out, size=height_width)
    if held_out_limit is not None:
        if held_out_limit < 1:
            raise InputError(f"held_out_limit {held_out_limit}; expected at least 1")
        stride = -(-len(judged) // held_out_limit)
        judged = open_data(data, split=held_out, size=height_width, stride=stride)
    torch.manual_seed(seed)
    network = load_model(model, weights=weights)
    if backbone is not None:
        print(load_backbone(network.network, backbone))
    budget = None if eps is None else parse_eps(eps)
    defence = make_adversary(adversary, norm=norm, eps=budget, mix=mix, **parsing.options(options))
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        optimiser=Optimiser(optimiser, lr, momentum, weight_decay, clip, heads),
        schedule=_schedule(SCHEDULES[schedule], parsing.options(schedule_options)),
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
        every=every,
    )
    attacked = isinstance(getattr(defence, "adversary", defence), Attacked)
    engine = Engine(device, devices, workers, in_memory, save_every)
    sentinel = Watch(norm, budget) if watch or attacked else None
    folder = Path(out)
    found = fit(Job(network, learnt, judged, recipe, folder, sentinel, engine, text=model))
    print(", ".join(f"{name} {value:.4f}" for name, value in found.figures().items()))
    print(f"Model: {folder / 'best.yaml'}")
    return 0


def _schedule(kind: Any, options: dict[str, Any]) -> Any:
    from segradius.errors import InputError

    try:
        return kind(**options)
    except TypeError as error:
        raise InputError(f"schedule_options: {error}") from error


def _range(text: Any) -> tuple[float, float] | None:
    from segradius.errors import InputError

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
    from segradius.weightings import balanced_weights

    return balanced_weights(class_counts(data))
