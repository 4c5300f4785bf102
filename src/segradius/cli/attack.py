"""``segradius attack``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from segradius.cli import parsing

Names = str | list[str]
Pairs = str | float | dict[str, Any] | list[Any]


def attack(
    model: str,
    data: str,
    attack: Names = "pgd,cr_pgd",
    norm: Names | None = None,
    eps: Pairs | None = None,
    out: str = "segradius-results",
    weights: str | None = None,
    num_classes: int | None = None,
    normalisation: str | dict[str, Any] | None = None,
    outputs: Literal["logits", "probabilities"] | None = None,
    split: str | None = None,
    limit: int | None = None,
    stride: int = 1,
    size: str | None = None,
    protocol: str | None = None,
    steps: int | None = None,
    alpha: float | str | None = None,
    restarts: int | None = None,
    start: Literal["zero", "uniform"] | None = None,
    keep: Literal["best", "last"] | None = None,
    projection: Literal["euclidean", "radial"] | None = None,
    samples: int | None = None,
    sigma: float | None = None,
    every: int | None = None,
    options: Pairs | None = None,
    target: str | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int = 8,
    figures: int = 2,
    overwrite: bool = False,
) -> int:
    """Attack a segmentation model over the images of a data set.

    Prints a table and writes a report into a folder: results.json, per_image.csv, table.md, figure.png and
    results.sqlite. Started again, the same command goes on where it was stopped.

    Args:
        model: Network: demo, torchvision:NAME, smp:NAME, hf:NAME, package.module:callable, each with ,key=value
            arguments, or the path of a YAML card.
        data: Images: scenes, voc:PATH, cityscapes:PATH, ade20k:PATH, camvid:PATH or folder:PATH.
        attack: Attacks, commas between them; cr_ before any name guides it by the certified radius.
        norm: Norms, of l1, l2, linf; by default those that eps names, or else l2.
        eps: Budget for images in [0, 1], over all values of an image: 1.5, or per norm and several at once,
            l2=0.5,1.5,linf=4/255. Default: the paper's l1=750,l2=1.5,linf=0.006.
        out: Folder of the report.
        weights: File with the network's weights, .safetensors or a checkpoint that holds tensors only.
        num_classes: Number of classes, where the model does not tell.
        normalisation: imagenet, none, or a mapping of mean and std; inside the model, never done to the data.
        outputs: What the network returns, where it is not logits.
        split: Part of the data set; its evaluation part by default.
        limit: Only the first so many images.
        stride: Only every stride-th image, as neighbouring frames of a video look alike.
        size: Resize to height x width, as in 240x320.
        protocol: Named preparation of images, instead of size.
        steps: Steps T. Default: the attack's own; the paper's 50 for l1 and l2, 20 for linf.
        alpha: Step length. Default: the attack's own; the paper's 2.5 eps/T for l1 and l2, eps/T for linf.
        restarts: Runs, all but the first from a random start. Default: 1.
        start: Where the first run starts. Default: the attack's own, mostly zero.
        keep: Iterate that counts: the best by fooled pixels, or the last as in the paper. Default: best.
        projection: Exact onto ball and pixel box, or radial scaling as in the published code. Default: euclidean.
        samples: Noisy samples M behind the radius; 0 takes the confidences of the attack's own pass. Default: 8.
        sigma: Standard deviation of that noise. Default: 0.001.
        every: Steps between refreshes of the radius (the paper's INT). Default: 8.
        options: Further options as name=value,name=value; see segradius list attacks.
        target: Aim at a class (name or number), at random classes, or at a mask image. Default: untargeted.
        seed: Seed of all random numbers, which are drawn for each image by its id.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Images at a time; changes no result.
        figures: Number of images in the picture.
        overwrite: Replace what another experiment left in the folder.

    Returns:
        The exit status.
    """
    import torch

    from segradius.cli.workflow import Workplace, carry_out, device_name, doubts
    from segradius.data import open_data
    from segradius.evaluation import DataChoice, Experiment, ModelChoice, make_plans, with_class_weights
    from segradius.models import fingerprint, load_model

    at = Workplace(Path(out), overwrite, batch_size, figures)
    named = {
        "steps": steps,
        "alpha": None if alpha is None else parsing.value_of(str(alpha)),
        "restarts": restarts,
        "start": start,
        "keep": keep,
        "projection": projection,
        "samples": samples,
        "sigma": sigma,
        "every": every,
    }
    plans = make_plans(parsing.names(attack), parsing.budgets(norm, eps), named | parsing.options(options))
    images = DataChoice(data, split, parsing.size(size), protocol, limit, stride)
    opened = open_data(data, split=split, size=images.size, protocol=protocol, limit=limit, stride=stride)
    torch.manual_seed(seed)  # a network without weights is at least the same one each time
    network = load_model(
        model,
        weights=weights,
        device=device_name(device),
        num_classes=num_classes,
        normalisation=normalisation,
        outputs=outputs,
    )
    for warning in doubts(model, weights, network.num_classes, len(opened.classes)):
        print(f"segradius: warning: {warning}", file=sys.stderr)
    plans = with_class_weights(plans, opened, network.num_classes)
    asked = None if normalisation is None else str(normalisation)
    chosen = ModelChoice(model, weights, num_classes, asked, outputs, fingerprint(network))
    carry_out(Experiment(chosen, images, plans, target, seed), network, opened, at)
    return 0
