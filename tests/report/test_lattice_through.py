"""The lattice from the option to tables, files and identities."""

from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image
from test_bands_through import data, threshold

import segradius as sr
from segradius.data.pairs import Pairs


def test_rounding_loses_nothing_and_the_saved_file_is_the_image(tmp_path) -> None:
    drawn = data(3)
    images = Pairs([((image * 255).round() / 255, label) for image, label in drawn.items], drawn.classes)
    variants = {"any": {"attack": "pgd"}, "held": {"attack": "pgd", "lattice": 255}}
    given = {"norm": "linf", "eps": 0.006, "steps": 3, "start": "uniform", "quiet": True, "save_images": True}
    found = sr.evaluate(threshold(3, 400.0), images, variants, **given)
    clean, free, held, worst = found.summary.rows
    assert (clean.lattice, free.lattice, held.lattice, worst.lattice) == (None, None, 255, None)
    assert held.rounded is not None
    assert free.rounded is not None
    assert held.rounded.pixacc == held.pixacc
    assert held.rounded.eps <= 1 / 255 + 1e-7 < 0.006 < free.rounded.eps
    told = str(found)
    assert "linf on k/255" in told
    assert "On k/255: adversarial images are of whole levels" in told
    plans = found.run.experiment.attacks
    assert "lattice" not in plans[0].options
    assert plans[1].options["lattice"] == 255
    folder = found.save(tmp_path / "out")
    rows = json.loads((folder / "results.json").read_text("utf-8"))["rows"]
    assert [row.get("lattice") for row in rows] == [None, None, 255, None]
    manifest = [line.split(",") for line in (folder / "adversarial" / "manifest.csv").read_text("utf-8").splitlines()]
    lines = [dict(zip(manifest[0], line, strict=True)) for line in manifest[1:]]
    assert len(lines) == 4
    for line in lines:
        with np.load(folder / line["npz"]) as file, Image.open(folder / line["png"]) as png:
            exact, read = torch.from_numpy(file["adversarial"]), torch.from_numpy(np.array(png)).permute(2, 0, 1)
        assert torch.equal(exact, read.float() / 255) == (line["attack"] == "held")
    only = sr.evaluate(threshold(3), images, "pgd", norm="linf", eps=0.006, steps=1, lattice=255, quiet=True)
    assert "worst" not in str(only)
    assert only.summary.rows[1].lattice == 255
