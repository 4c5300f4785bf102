"""``segradius attack``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from segradius.cli import parsing
from segradius.core import text

Names = str | list[str]
Pairs = str | float | dict[str, Any] | list[Any]


def attack(
    data: str,
    model: str | None = None,
    target: str | None = None,
    attack: Names | None = None,
    norm: Names | None = None,
    eps: Pairs | None = None,
    out: str = "segradius-results",
    weights: str | None = None,
    num_classes: int | None = None,
    normalisation: str | dict[str, Any] | None = None,
    outputs: Literal["logits", "probabilities", "scores", "labels"] | None = None,
    answers: str | None = None,
    input: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    stride: int = 1,
    size: str | None = None,
    protocol: str | None = None,
    steps: int | None = None,
    queries: int | None = None,
    alpha: float | str | None = None,
    gamma: float | str | None = None,
    restarts: int | None = None,
    start: Literal["zero", "uniform"] | None = None,
    keep: Literal["best", "last"] | None = None,
    projection: Literal["euclidean", "radial"] | None = None,
    samples: int | None = None,
    sigma: float | None = None,
    every: int | None = None,
    judge_every: int | None = None,
    marks: str | int | list[int] | None = None,
    options: Pairs | None = None,
    aim: str | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int = 8,
    budget: int | None = None,
    checkpoint_seconds: float = 30.0,
    figures: int = 2,
    overwrite: bool = False,
) -> int:
    """Attack a segmentation model over the images of a data set.

    A model that you have is attacked with its gradients, or without them; a target, which answers with scores only, by
    black-box attacks, which count every query. Prints a table and writes a report into a folder: results.json,
    per_image.csv, table.md, figure.png and results.sqlite; of black-box attacks trace.csv and curve.png too. Started
    again, the same command goes on where it was stopped.

    Args:
        data: Images: scenes, voc:PATH, cityscapes:PATH, ade20k:PATH, camvid:PATH or folder:PATH.
        model: Network: demo, torchvision:NAME, smp:NAME, hf:NAME, package.module:callable, each with ,key=value
            arguments, or the path of a YAML card.
        target: In place of a model, what is asked for scores only: onnx:FILE, oip:http://HOST:PORT/v2/models/NAME, each
            with ,key=value options, or anything that model takes. See segradius list targets.
        attack: Attacks, commas between them; cr_ before any name guides it by the certified radius. See segradius list
            attacks, which tells the black-box ones from the others. Default: pgd,cr_pgd; of a target
            local_pbgd,local_search.
        norm: Norms, of l1, l2, linf; by default those that eps names, or else l2.
        eps: Budget for images in [0, 1], over all values of an image: 1.5, or per norm and several at once,
            l2=0.5,1.5,linf=4/255. Default: the paper's l1=750,l2=1.5,linf=0.006, or l1=10000,l2=10,linf=0.05 if all
            attacks are black-box.
        out: Folder of the report.
        weights: File with the network's weights, .safetensors or a checkpoint that holds tensors only.
        num_classes: Number of classes, where the model does not tell.
        normalisation: imagenet, none, or a mapping of mean and std; inside the model, never done to the data.
        outputs: What the network returns, where it is not logits, or a served target, where it is not probabilities.
        answers: Make the target's answers as a deployed one's: digits=3 (rounded), top=2 (only the two best classes),
            labels, or several with commas.
        input: Make of the images what a deployed target would: uint8, jpeg=90.
        split: Part of the data set; its evaluation part by default.
        limit: Only the first so many images.
        stride: Only every stride-th image, as neighbouring frames of a video look alike.
        size: Resize to height x width, as in 240x320.
        protocol: Named preparation of images, instead of size.
        steps: Steps T of white-box attacks. Default: the attack's own; the paper's 50 for l1 and l2, 20 for linf.
        queries: Queries of black-box attacks about each image, the noisy and the judging ones included. Default: the
            attack's own, 1000, or the paper's 30001.
        alpha: Step length. Default: the attack's own; the paper's 2.5 eps/T for l1 and l2, eps/T for linf.
        gamma: How far from the iterate a black-box attack asks, in the unit of eps. Default: the attack's own.
        restarts: Runs, all but the first from a random start. Default: 1.
        start: Where the first run starts. Default: the attack's own, mostly zero.
        keep: Iterate that counts: the best by fooled pixels, or the last as in the paper. Default: best.
        projection: Exact onto ball and pixel box, or radial scaling as in the published code. Default: euclidean.
        samples: Noisy samples M behind the radius; 0 takes the confidences of the attack's own pass. Default: 8.
        sigma: Standard deviation of that noise. Default: 0.001.
        every: Steps between refreshes of the radius (the paper's INT). Default: 8.
        judge_every: Rounds of a black-box attack between verdicts on its iterate, one query each. Default: 0, the last
            iterate alone.
        marks: Query counts within which the iterate is judged too, for the curve, as in 200,400,800.
        options: Further options as name=value,name=value; see segradius list attacks.
        aim: Aim at a class (name or number), at random classes, or at a mask image. Default: untargeted.
        seed: Seed of all random numbers, which are drawn for each image by its id.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Images at a time; changes no result.
        budget: Images that a target may answer in all, earlier runs in the folder included. Default: no limit.
        checkpoint_seconds: Seconds between checkpoints of a black-box attack; 0 for one every round.
        figures: Number of images in the picture.
        overwrite: Replace what another experiment left in the folder.

    Returns:
        The exit status.
    """
    import torch

    from segradius.attacks import default_eps
    from segradius.cli.opening import Asked, open_seen
    from segradius.cli.workflow import Workplace, carry_out, doubts
    from segradius.data import open_data
    from segradius.evaluation import DataChoice, Experiment, make_plans, with_class_weights

    at = Workplace(Path(out), overwrite, batch_size, figures, checkpoint_seconds)
    named = {
        "steps": steps,
        "queries": queries,
        "alpha": None if alpha is None else text.value_of(str(alpha)),
        "gamma": None if gamma is None else text.value_of(str(gamma)),
        "restarts": restarts,
        "start": start,
        "keep": keep,
        "projection": projection,
        "samples": samples,
        "sigma": sigma,
        "every": every,
        "judge_every": judge_every,
        "marks": text.counts(marks),
    }
    names = text.names(attack or ("local_pbgd,local_search" if target else "pgd,cr_pgd"))
    budgets = parsing.budgets(norm, eps, default_eps(names))
    plans = make_plans(names, budgets, named | text.options(options))
    images = DataChoice(data, split, text.size(size), protocol, limit, stride)
    asked = Asked(model, target, weights, num_classes, normalisation, outputs, answers, input, budget)
    opened = open_data(data, split=split, size=images.size, protocol=protocol, limit=limit, stride=stride)
    asked.check(opened.classes.names)
    torch.manual_seed(seed)  # a network without weights is at least the same one each time
    seen, chosen = open_seen(asked, device)
    for warning in doubts(asked.text, weights, seen.num_classes, len(opened.classes)):
        print(f"segradius: warning: {warning}", file=sys.stderr)
    plans = with_class_weights(plans, opened, seen.num_classes)
    carry_out(Experiment(chosen, images, plans, aim, seed), seen, opened, at)
    return 0
