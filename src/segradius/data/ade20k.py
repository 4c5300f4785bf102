"""ADE20K in the layout of the scene-parsing challenge, 150 classes."""

from __future__ import annotations

from segradius.core.errors import unknown_name
from segradius.data.files import BenchmarkFiles, existing_folder, paired
from segradius.data.listing import MASK_SUFFIXES, list_files
from segradius.data.masks import MaskKey
from segradius.data.sample import DATA, Classes, voc_palette

_NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat,
fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter,
sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land, bannister,
escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray,
ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
# The challenge's own colours are not part of the data; black is left for ignored pixels.
ADE20K = Classes(tuple(_NAMES.replace("\n", " ").strip().split(", ")), voc_palette(151)[1:])
_KEY = MaskKey(((0, 255), *((n, n - 1) for n in range(1, 151))))
_FOLDERS = {"train": "training", "training": "training", "val": "validation", "validation": "validation"}


@DATA.register("ade20k")
def ade20k(path: str, split: str | None = None) -> BenchmarkFiles:
    """ADE20K scene parsing, 150 classes: mask value 0 is ignored, value n is class n − 1, reduced here and only here.

    Args:
        path: The folder ``ADEChallengeData2016`` (or the one that holds it).
        split: ``training``/``train`` or ``validation``/``val`` (default).

    Raises:
        InputError: A folder is absent, the split is unknown, or an image has no mask.
    """
    root = existing_folder("ade20k", path)
    if (root / "ADEChallengeData2016").is_dir():
        root = root / "ADEChallengeData2016"
    if (split or "val") not in _FOLDERS:
        raise unknown_name("ade20k split", str(split), _FOLDERS)
    folder = _FOLDERS[split or "val"]
    existing_folder("ade20k", str(root), f"images/{folder}", f"annotations/{folder}")
    images = list_files(root, f"images/{folder}")
    masks = list_files(root, f"annotations/{folder}", MASK_SUFFIXES, once=False)
    pairs, left_out = paired(f"ade20k/{folder}", images, masks)
    return BenchmarkFiles(f"ade20k/{folder}", ADE20K, _KEY, pairs, left_out=left_out)
