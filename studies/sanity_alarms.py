"""How often do sanity verdicts warn of networks that are as they should be? Many small runs, a line for each verdict.

    python studies/sanity_alarms.py --out docs/data/sanity/alarms.csv --given camvid=PATH,weights=FILE

Networks are the demo network; networks like it, trained here from other seeds and with other widths; one that was not
trained, of which the check ``fit`` is to say so; and the CamVid network where its data and weights are given. Each run
has another seed, number and size of images, norm and budget.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch.nn import functional

import segradius as sr
from segradius.core import text
from segradius.data import collate
from segradius.evaluation import SanityVerdict
from segradius.models import DemoNetwork, Normalisation
from segradius.report import Cells

COLUMNS = ("network", "run", "data", "threat", "check", "verdict", "value", "text")
ATTACKS = ("pgd", "fgsm", "square", "flip_apgd")
#: Data of drawn scenes, and budgets; a run takes the next of each.
SCENES = ("scenes:48x64,12", "scenes:24x32,20", "scenes:64x48,6", "scenes:96x128,8", "scenes:48x64,24")
BUDGETS = ("linf=0.006", "l2=1.5", "linf=8/255", "l2=0.5,1.5", "linf=2/255,4/255", "linf=0.1", "l1=750")
CAMVID = "smp:PSPNet,encoder_name=resnet18,encoder_weights=null,encoder_depth=3,classes=11"
NORMALISED = Normalisation.imagenet()


def measure(out: Path, runs: int = 24, others: int = 4, threads: int = 1, given: str = "") -> None:
    """Runs of networks that are as they should be, and what every check says of each.

    Args:
        out: CSV file, to which lines are added as they come.
        runs: Of the demo network.
        others: Of every other network.
        threads: Of this process.
        given: camvid=FOLDER,weights=FILE for the CamVid network.
    """
    torch.set_num_threads(threads)
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = text.options(given or None)
    with out.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        for network, model, data in networks(paths):
            for run in range(runs if network == "demo" else others):
                chosen, eps = data[run % len(data)], BUDGETS[run % len(BUDGETS)]
                for each in verdicts(model, chosen, eps, run):
                    said = each.text if each.fired else ""
                    about = (network, run, label(chosen), eps)
                    lines.writerow((*about, each.name, each.verdict, f"{each.value:.6g}", said))
                file.flush()
    print(*(cells.markdown() for cells in tables(out)), sep="\n\n")


def label(data: str) -> str:
    """Without a path of this machine."""
    return data if data.startswith("scenes") else "camvid"


def verdicts(model: sr.Segmenter, data: str, eps: str, seed: int) -> tuple[SanityVerdict, ...]:
    """Of one run; PGD also with twice the steps, so that every check has something to look at."""
    attacks = {name: {"attack": name} for name in ATTACKS} | {"short_pgd": {"attack": "pgd", "steps": 10}}
    attacks["pgd"] |= {"steps": 20}
    attacks["square"] |= {"queries": 100}
    attacks["flip_apgd"] |= {"steps": 20}
    if eps.startswith("l1"):
        del attacks["square"]
    chosen = sr.open_data(data, split="test" if data.startswith("camvid") else None)
    chosen = chosen if data.startswith("scenes") else sr.open_data(data, split="test", size=(120, 160), stride=20)
    return sr.evaluate(model, chosen, attacks, eps=eps, seed=seed, quiet=True).verdicts


def networks(paths: Mapping[str, str]) -> Iterator[tuple[str, sr.Segmenter, tuple[str, ...]]]:
    """Name, network and data of each."""
    yield "demo", sr.load_model("demo"), SCENES
    for seed, width in ((1, 32), (2, 16), (3, 48)):
        yield f"trained, width {width}", trained(seed, width), SCENES
    torch.manual_seed(0)
    yield "untrained", sr.load_model("pspnet_light,num_classes=8"), ("scenes:96x128,8", "scenes:96x128,12")
    if paths:
        camvid = sr.load_model(CAMVID, weights=str(paths["weights"]))
        yield "camvid", camvid, (f"camvid:{paths['camvid']}",)


def trained(seed: int, width: int, steps: int = 200) -> sr.Segmenter:
    """A network like the demo's, trained for a minute."""
    torch.manual_seed(seed)
    network, data = DemoNetwork(width=width), sr.open_data("scenes:96x128,200", split="train")
    images, labels, _ = collate([data[place] for place in range(len(data))])
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (8,))
        loss = functional.cross_entropy(network(NORMALISED.apply(images[rows])), labels[rows], ignore_index=255)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return sr.wrap(network.eval(), num_classes=8, normalisation="imagenet", name=f"width {width}")


def tables(path: Path) -> list[Cells]:
    """How many runs of each network a check warned of or failed, and how many it left open."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["network"] for row in rows))
    runs = {name: len({row["run"] for row in rows if row["network"] == name}) for name in names}
    lines = []
    for check in sorted({row["check"] for row in rows}):
        cells = []
        for name in names:
            said = [row["verdict"] for row in rows if (row["network"], row["check"]) == (name, check)]
            fired, left = sum(each in ("warn", "fail") for each in said), said.count("open")
            cells.append(f"{fired}" + (f" ({left} open)" if left else ""))
        lines.append((check, *cells))
    header = ("check", *(f"{name}, {runs[name]} runs" for name in names))
    return [Cells("Runs in which a check said warn or fail", header, lines)]


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)
