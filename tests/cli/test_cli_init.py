"""``segradius init``: what it writes is read back as meant, its commands run as printed, no guess is silent."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segradius.cli import main
from segradius.data import open_data
from segradius.data.folder import read_spec

NETWORK = """
import torch
class Bright(torch.nn.Module):
    def __init__(self, bands, channels, sigmoid):
        super().__init__()
        self.conv, self.sigmoid = torch.nn.Conv2d(bands, channels, 1), sigmoid
        with torch.no_grad():
            self.conv.weight.fill_(40.0 / bands)
            self.conv.bias.fill_(-16.0)
    def forward(self, x):
        z = self.conv(x)
        return torch.sigmoid(z) if self.sigmoid else z
def one():
    return Bright(1, 1, True)
def logit():
    return Bright(1, 1, False)
def three():
    return Bright(3, 2, True)
"""

Save = Callable[[Path, np.ndarray], None]


def png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def cells(root: Path, images: str = "images/{}.png", masks: str = "masks/{}.png", top: int = 4000) -> Path:
    """Six 16-bit grey images of bright squares on dark ground, and masks of 0 and 255."""
    rng = np.random.default_rng(0)
    for n in range(6):
        mask = np.zeros((24, 32), np.uint8)
        mask[4 : 10 + n, 6 : 14 + n] = 255
        image = 0.2 * top + 0.5 * top * (mask > 0) + rng.normal(0, 0.02 * top, mask.shape)
        png(root / images.format(f"c{n}"), image.clip(0, top).astype(np.uint16))
        png(root / masks.format(f"c{n}"), mask)
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with networks in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "nets_here.py").write_text(NETWORK)
    yield tmp_path
    sys.modules.pop("nets_here", None)


def written(folder: Path, name: str = "segradius.yaml") -> dict[str, object]:
    return yaml.safe_load((folder / name).read_text())


def test_from_a_folder_and_a_network_to_a_run(here: Path, capsys: pytest.CaptureFixture[str]):
    cells(here / "cells")
    assert main(["init", "cells", "--model", "nets_here:one", "--classes", "background,cell"]) == 0
    found = written(here / "cells")
    assert found == {"images": "images", "masks": "masks", "classes": ["background", "cell"], "values": [0, 255],
                     "bands": 1, "range": [0, 4095]}  # fmt: skip
    card = written(here / "cells", "model.yaml")
    assert (card["bands"], card["outputs"], card["normalisation"]) == (1, "sigmoid", "none")
    text = (here / "cells" / "segradius.yaml").read_text()
    assert "range: [0, 4095]  # guess: 12 bits. uint16; 6 files hold" in text
    assert "# guess" not in next(line for line in text.splitlines() if line.startswith("classes"))
    said = capsys.readouterr().out
    assert "Guesses, as nobody was asked: values, range, outputs, normalisation." in said
    assert (here / "cells" / "segradius-data" / "sheet.png").is_file()
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  segradius ")]
    assert [command[1] for command in commands] == ["data", "evaluate", "assess", "attack"]
    for command in commands:  # as they are printed, but for how long
        short = ["--passes", "50"] if command[1] == "assess" else []
        assert main([*command[1:], *short]) in ((4,) if short else (0,))  # too few images for a verdict
    assert "Dice and IoU: cell" in capsys.readouterr().out


def test_nothing_that_is_there_is_replaced_unless_told(here: Path, capsys: pytest.CaptureFixture[str]):
    cells(here / "cells")
    (here / "cells" / "segradius.yaml").write_text("mine")
    assert main(["init", "cells"]) == 2
    assert "segradius.yaml is there already; add --overwrite" in capsys.readouterr().err
    assert (here / "cells" / "segradius.yaml").read_text() == "mine"
    assert main(["init", "cells", "--overwrite", "--yes"]) == 0
    assert written(here / "cells")["values"] == [0, 255]
    assert "--model MODEL" in capsys.readouterr().out


def test_on_a_terminal_guesses_are_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch):
    cells(here / "cells")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("[ground, cell]\n\n[0, 5000]\nbinary_logit\n\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["init", "cells", "--model", "nets_here:logit"]) == 0
    found, card = written(here / "cells"), written(here / "cells", "model.yaml")
    assert (found["classes"], found["values"], found["range"]) == (["ground", "cell"], [0, 255], [0, 5000])
    assert card["outputs"] == "binary_logit"
    assert sys.stderr.getvalue().count(" [") >= 5


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_torchscript_file_is_known_by_its_content(here: Path):
    cells(here / "cells")
    sys.path.insert(0, str(here))
    import nets_here

    network = torch.jit.trace(nets_here.one().eval(), torch.rand(1, 1, 24, 32))
    network.save("unet.pt")
    assert main(["init", "cells", "--model", "unet.pt", "--yes"]) == 0
    card = written(here / "cells", "model.yaml")
    assert (card["name"], card["model"], card["outputs"]) == ("unet", "torchscript:unet.pt", "sigmoid")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_onnx_file_is_a_target_with_what_its_answers_are(here: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    cells(here / "cells")
    import nets_here

    for name, outputs in (("one", "sigmoid"), ("logit", "binary_logit")):
        network = getattr(nets_here, name)().eval()
        torch.onnx.export(network, (torch.rand(1, 1, 24, 32),), f"{name}.onnx", dynamo=False)
        assert main(["init", "cells", "--model", f"{name}.onnx", "--yes", "--overwrite"]) == 0
        said = capsys.readouterr().out
        assert f"evaluate --target onnx:{name}.onnx,outputs={outputs} --data folder:cells" in said
    assert not (here / "cells" / "model.yaml").exists()
    command = next(line for line in said.splitlines() if line.startswith("  segradius evaluate"))
    assert main(shlex.split(command)[1:]) == 0


def test_a_card_is_used_as_it_is(here: Path, capsys: pytest.CaptureFixture[str]):
    cells(here / "cells")
    card = "model: nets_here:one\nbands: 1\noutputs: sigmoid\nthreshold: 0.4\nnormalisation: none\n"
    (here / "card.yaml").write_text(card)
    assert main(["init", "cells", "--model", "card.yaml", "--yes"]) == 0
    assert "evaluate --model card.yaml --data folder:cells" in capsys.readouterr().out
    assert written(here / "cells")["bands"] == 1
    assert (here / "card.yaml").read_text() == card
    assert not (here / "cells" / "model.yaml").exists()


def test_weights_alone_are_refused_with_what_is_lacking(here: Path, capsys: pytest.CaptureFixture[str]):
    cells(here / "cells")
    torch.save({"weight": torch.zeros(3)}, "unet.pth")
    assert main(["init", "cells", "--model", "unet.pth"]) == 2
    assert "weights, without the network" in capsys.readouterr().err
    assert not (here / "cells" / "segradius.yaml").exists()


@pytest.mark.parametrize(
    ("images", "masks", "patterns"),
    [
        ("Scans/{}.png", "GT/{}.png", ("Scans", "GT")),
        ("images/{}.png", "masks/{}_gt.png", ("images", "masks/*_gt.*")),
        ("{}.png", "{}_mask.tif", ("*.png", "*_mask.*")),
        ("raw/{}.png", "annot/{}.png", ("raw", "annot")),
        ("photos/{}.png", "Annot/{}.png", ("photos", "Annot")),
        ("raw/{}_img.tif", "annot/{}_seg.png", ("raw/*_img.*", "annot/*_seg.*")),
        ("scans/{}_raw.tif", "Seg_final/{}.png", ("scans/*_raw.*", "Seg_final")),
    ],
)
def test_images_and_masks_are_found_by_their_usual_names(
    here: Path, images: str, masks: str, patterns: tuple[str, str]
):
    cells(here / "d", images, masks)
    assert main(["init", "d", "--yes"]) == 0
    found = written(here / "d")
    assert (found["images"], found["masks"]) == patterns
    assert open_data("folder:d").ids == tuple(f"c{n}" for n in range(6))


@pytest.mark.parametrize("order", ["images/{split}/{name}.png", "{split}/images/{name}.png"])
def test_parts_become_splits(here: Path, order: str, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "val"):
        at = order.replace("{split}", split).replace("{name}", "{}")
        cells(here / "d", at, at.replace("images", "masks"))
    assert main(["init", "d", "--yes"]) == 0
    assert written(here / "d")["images"] == order.removesuffix("/{name}.png")
    assert "--split val" in capsys.readouterr().out
    assert len(open_data("folder:d", split="train")) == 6


def test_pairs_that_patterns_do_not_name_are_listed(here: Path, capsys: pytest.CaptureFixture[str]):
    cells(here / "d", "{}.png", "{}_mask.png")
    cells(here / "e")
    png(here / "e" / "images" / "z.png", np.zeros((24, 32), np.uint16))
    for folder in ("d", "e"):
        assert main(["init", folder, "--yes"]) == 0
        said = capsys.readouterr()
        spec = f"list:{folder}/pairs.csv,about={folder}/segradius.yaml"
        assert f"data check {spec}" in said.out
        assert [Path(name).name for name in open_data(spec).ids] == [f"c{n}" for n in range(6)]
    assert "1 image(s) without a mask are left out: z" in said.err


@pytest.mark.parametrize(
    ("shape", "entries"),
    [
        ((24, 32, 4), {"bands": 4, "layout": "hwc"}),
        ((5, 24, 32), {"bands": 5, "layout": "chw"}),
        ((24, 32), {"bands": 1}),
    ],
)
def test_arrays_tell_their_bands(here: Path, shape: tuple[int, ...], entries: dict[str, object]):
    png(here / "d" / "masks" / "a.png", np.resize(np.array([0, 1], np.uint8), (24, 32)))
    (here / "d" / "images").mkdir()
    np.save(here / "d" / "images" / "a.npy", np.random.default_rng(0).random(shape).astype(np.float32))
    assert main(["init", "d", "--yes"]) == 0
    found = written(here / "d")
    assert {key: found.get(key) for key in ("bands", "layout")} == {"layout": None, **entries}
    assert found["range"] == [0, 1]
    assert tuple(open_data("folder:d")[0].image.shape) == (entries["bands"], 24, 32)


def test_stacks_with_stacks_of_masks_become_slices(here: Path):
    tifffile = pytest.importorskip("tifffile")
    for kind in ("images", "masks"):
        (here / "d" / kind).mkdir(parents=True)
    tifffile.imwrite(here / "d" / "images" / "a.tif", np.random.default_rng(0).integers(0, 900, (5, 24, 32), np.uint16))
    mask = np.zeros((5, 24, 32), np.uint8)
    mask[4, 3:9] = 255
    tifffile.imwrite(here / "d" / "masks" / "a.tif", mask)
    assert main(["init", "d", "--yes"]) == 0
    found = written(here / "d")
    assert (found["slices"], found["bands"], found["range"], found["values"]) == ({"every": 1}, 1, [0, 1023], [0, 255])
    assert len(open_data("folder:d")) == 5


def test_folders_of_masks_become_structures(here: Path):
    cells(here / "d", masks="masks/organ/{}.png")
    cells(here / "d", masks="masks/vessel/{}.png")
    assert main(["init", "d", "--yes"]) == 0
    assert written(here / "d")["structures"] == ["organ", "vessel"]
    data = open_data("folder:d")
    assert data.classes.structures == ("organ", "vessel")
    assert data[0].label.unique().tolist() == [0, 3]


def labelled(root: Path, mask: np.ndarray, image: np.ndarray | None = None) -> Path:
    png(root / "images" / "a.png", np.full((*mask.shape[:2], 3), 90, np.uint8) if image is None else image)
    png(root / "masks" / "a.png", mask)
    return root


@pytest.mark.parametrize(
    ("values", "classes", "entries"),
    [
        ((0, 1), ["background", "foreground"], {}),
        ((0, 1, 2), ["background", "class 1", "class 2"], {}),
        ((0, 1, 2, 255), ["background", "class 1", "class 2"], {"ignore_index": 255}),
        ((0, 128, 255), ["background", "class 1", "class 2"], {"values": [0, 128, 255]}),
        ((0,), ["background", "foreground"], {"values": [0, 255]}),
    ],
)
def test_values_in_the_masks_become_classes(
    here: Path, values: tuple[int, ...], classes: list[str], entries: dict[str, object]
):
    labelled(here / "d", np.resize(np.array(values, np.uint8), (8, 9)))
    assert main(["init", "d", "--yes"]) == 0
    assert written(here / "d") == {"images": "images", "masks": "masks", "classes": classes, **entries}
    assert read_spec(here / "d" / "segradius.yaml").classes == tuple(classes)


def test_colours_in_the_masks_become_a_palette(here: Path):
    mask = np.zeros((8, 9, 3), np.uint8)
    mask[2:, :, 0] = 128
    labelled(here / "d", mask)
    assert main(["init", "d", "--yes"]) == 0
    assert written(here / "d")["palette"] == [[0, 0, 0], [128, 0, 0]]
    assert open_data("folder:d")[0].label.unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("mask", "words", "told"),
    [
        (np.arange(200, dtype=np.uint8).reshape(10, 20), [], "200 different values"),
        (np.resize(np.array([0, 1, 2], np.uint8), (8, 9)), ["--classes=a,b"], "2 classes were given (a, b)"),
        (np.zeros((8, 9), np.uint8), ["--images=nowhere"], "no image in"),
        (np.zeros((8, 9), np.uint8), ["--masks=masks/*_x.png"], "has the name of an image"),
    ],
)
def test_what_cannot_be_guessed_is_refused_in_words(
    here: Path, capsys: pytest.CaptureFixture[str], mask: np.ndarray, words: list[str], told: str
):
    labelled(here / "d", mask)
    assert main(["init", "d", "--yes", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (here / "d" / "segradius.yaml").exists()


def test_a_folder_without_images_and_one_that_is_not_there_are_refused(here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "empty").mkdir()
    assert main(["init", "empty"]) == 2
    cells(here / "named", "photos/{}.png", "truth/{}.png")
    assert main(["init", "named"]) == 2
    assert main(["init", "absent"]) == 2
    said = capsys.readouterr().err
    assert "and no images; give --images and --masks" in said
    assert "and no images; it has photos, truth; give --images and --masks" in said
    assert "there is no folder absent" in said


def test_masks_alone_ask_for_the_images(here: Path, capsys: pytest.CaptureFixture[str]):
    cells(here / "d", "photos/{}.png", "gt/{}.png")
    (here / "d" / "notes").mkdir()
    assert main(["init", "d", "--masks", "gt", "--yes"]) == 2
    assert "--masks gt is given, and no sub-folder of d is called images" in (said := capsys.readouterr().err)
    assert "give --images too" in said
    assert main(["init", "d", "--masks", "gt", "--images", "photos", "--yes"]) == 0
    cells(here / "e", "{}.png", "thing/{}.png")  # the images lie in the folder itself
    assert main(["init", "e", "--masks", "thing", "--yes"]) == 0
    assert written(here / "e")["masks"] == "thing"


@pytest.mark.parametrize("top", [200, 255, 256, 1000, 1023, 3000, 4095, 4096, 16383, 16384, 65535])
def test_a_range_is_guessed_by_the_least_number_of_bits_that_holds_the_largest_value(here: Path, top: int):
    cells(here / "d", top=top // 2)
    png(here / "d" / "images" / "c0.png", np.full((24, 32), top, np.uint16))
    assert main(["init", "d", "--yes"]) == 0
    least = min(2**bits - 1 for bits in (8, 10, 12, 14, 16) if 2**bits > top)
    assert f"range: [0, {least}]  # guess" in (here / "d" / "segradius.yaml").read_text()


def test_a_range_is_guessed_of_the_finite_numbers_and_of_no_single_one(here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "d" / "images").mkdir(parents=True)
    for name, first in (("a", np.nan), ("b", -2), ("c", np.inf)):
        png(here / "d" / "masks" / f"{name}.png", np.resize(np.array([0, 1], np.uint8), (4, 6)))
        np.save(here / "d" / "images" / f"{name}.npy", np.array([[first, 5]] * 2, np.float32))
    assert main(["init", "d", "--yes"]) == 3  # two of three images cannot be used, and one is all of one label
    assert written(here / "d")["range"] == [-2, 5]
    capsys.readouterr()
    for name in "abc":
        np.save(here / "d" / "images" / f"{name}.npy", np.full((4, 6), -1000, np.int16))
    assert main(["init", "d", "--yes", "--overwrite"]) == 2
    assert "no range can be guessed, of int16; 3 files hold -1000 to -1000: give --range" in capsys.readouterr().err
    assert main(["init", "d", "--yes", "--overwrite", "--range", "-1000,400"]) == 0
    assert written(here / "d")["range"] == [-1000, 400]


def test_the_figure_of_a_guess_is_named_with_the_images_and_its_doubt(here: Path):
    for name, top, good in (("d", 4000, True), ("e", 20, False)):
        cells(here / name, top=top)
        more = [] if good else ["--range", "0,65535"]
        assert main(["init", name, "--model", "nets_here:one", "--classes", "background,cell", "--yes", *more]) == 0
        line = next(it for it in (here / name / "model.yaml").read_text().splitlines() if it.startswith("normal"))
        assert "guess: IoU of cell over 4 images: " in line
        assert "MIoU" not in line
        assert ("none is good: look at the range" in line) is not good
