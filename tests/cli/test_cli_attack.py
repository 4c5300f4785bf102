"""`segradius attack` end to end, in process, on a model whose every number is known."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segradius.cli import main

MODEL = ["--model", "closed_form:threshold", "--num-classes", "2"]
COMMAND = ["attack", *MODEL, "--data", "folder:data", "--device", "cpu", "--out", "out"]
FGSM = [*COMMAND, "--attack", "fgsm,pgd", "--norm", "linf", "--eps", "0.1"]


NETWORK = '''
import torch

def threshold():
    """Class 1 where the mean of the channels is above one half."""
    def network(x):
        mean = x.mean(1, keepdim=True)
        return torch.cat([0.5 - mean, mean - 0.5], 1)
    return network

def probabilities():
    network = threshold()
    return lambda x: network(x).softmax(1)

def steep_probabilities():
    network = threshold()
    return lambda x: (20 * network(x)).softmax(1)

def not_a_number():
    network = threshold()
    return lambda x: network(x) * float("nan")

def flat():
    return lambda x: x.mean((1, 2, 3))
'''

# l∞ ε = 0.1 turns the pixels with brightness 115 and 140, and no others; the last column is void in image b.
BRIGHTNESS = {"a": [51, 115, 140, 204], "b": [51, 115, 204, 51], "c": [51, 51, 204, 204]}
LABELS = {"a": [0, 0, 1, 1], "b": [0, 0, 1, 255], "c": [0, 0, 1, 1]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``closed_form.py`` and the data set ``images``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "closed_form.py").write_text(NETWORK)
    for kind, table in (("images", BRIGHTNESS), ("masks", LABELS)):
        folder = tmp_path / "data" / kind
        folder.mkdir(parents=True)
        for name, row in table.items():
            pixels = np.array([row] * 2, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    (tmp_path / "data" / "segradius.yaml").write_text("classes: [dark, bright]\n")
    return tmp_path


def report(folder: str = "out") -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def timeless(found: dict) -> dict:
    """A report without times and the command."""
    for name in ("date", "command"):
        found["runtime"].pop(name)
    found.pop("command")
    for row in found["rows"]:
        row.pop("seconds")
    return found


def test_the_report_has_the_numbers_of_the_closed_form(place, capsys):
    assert main(FGSM) == 0
    found = report()
    clean, fgsm, pgd, worst = found["rows"]
    assert (clean["name"], clean["pixacc"]["value"], clean["images"]) == ("clean", 1.0, 3)
    # 22 labelled pixels; two of a's columns and one of b's are turned, two pixels each.
    assert fgsm["pixacc"]["value"] == pgd["pixacc"]["value"] == worst["pixacc"]["value"] == 16 / 22
    assert fgsm["success"]["value"] == 6 / 22
    assert fgsm["sanity"]["length_over_eps"] == pytest.approx(1, abs=1e-5)
    assert (fgsm["sanity"]["outside"], fgsm["sanity"]["disagreement"]) == (0, 0)
    assert (fgsm["backward"], pgd["backward"]) == (1, 20)
    assert found["experiment"]["seed"] == 0
    assert found["experiment"]["attacks"][1]["eps"] == 0.1
    assert found["runtime"]["versions"]["torch"] == torch.__version__
    assert found["paired_differences"][0]["attack"] == "fgsm"
    assert found["set_aside"] == {}
    assert fgsm["ledger"]["checking"] == {"forward": 3 + 3, "backward": 0}  # judged again, and rounded
    assert fgsm["forward"] == sum(book["forward"] for name, book in fgsm["ledger"].items() if name != "checking") / 3
    # Two images in the picture, each seen before the attacks; 8 noisy copies for their radius maps, and for that of a
    # third one in the gallery. What was seen after attacks was kept.
    assert found["runtime"]["picture"] == {"picture": {"forward": 2 * (1 + 8) + 8, "backward": 0}}
    shown = capsys.readouterr().out
    assert "72.7" in shown
    assert "worst of 2" in shown


def test_one_line_for_each_image_and_a_picture(place):
    assert main(FGSM) == 0
    lines = list(csv.DictReader(Path("out/per_image.csv").read_text().splitlines()))
    assert [(line["attack"], line["image"], line["right"], line["pixels"]) for line in lines[:6]] == [
        ("clean", "a", "8", "8"), ("clean", "b", "6", "6"), ("clean", "c", "8", "8"),
        ("fgsm", "a", "4", "8"), ("fgsm", "b", "4", "6"), ("fgsm", "c", "8", "8"),
    ]  # fmt: skip
    with Image.open("out/figure.png") as picture:
        assert picture.format == "PNG"
    assert Path("out/table.md").read_text().count("| fgsm | linf | 0.1 | 25.5 | 3 |") == 1
    assert {file.name for file in Path("out").iterdir()} == {
        "results.json", "per_image.csv", "classes.csv", "confusion.csv", "table.md", "figure.png", "gallery",
        "results.sqlite", "SHA256SUMS",
    }  # fmt: skip


def test_several_norms_and_budgets_give_a_picture_each(place):
    words = [
        *COMMAND,
        "--attack",
        "fgsm",
        "--attack",
        "dag",
        "--eps",
        "linf=0.05,0.1",
        "--eps",
        "l2=1",
        "--figures",
        "1",
    ]
    assert main(words) == 0
    rows = [(row["name"], row["norm"], row["eps"]) for row in report()["rows"]]
    threats = [("linf", 0.05), ("linf", 0.1), ("l2", 1.0)]
    worst = [("worst of 2", *threat) for threat in threats]
    assert rows == [("clean", None, None), *((n, *threat) for threat in threats for n in ("fgsm", "dag")), *worst]
    pictures = sorted(file.name for file in Path("out").glob("*.png"))
    assert pictures == ["figure-l2-1.png", "figure-linf-0.1.png", "figure.png"]


def test_an_option_reaches_the_attacks_that_take_it(place):
    assert main([*COMMAND, "--attack", "pgd,cr_pgd", "--eps", "linf=0.1", "--steps", "3", "--samples", "2"]) == 0
    pgd, guided = report()["experiment"]["attacks"]
    assert (pgd["options"]["steps"], guided["options"]["steps"]) == (3, 3)
    assert ("samples" in pgd["options"], guided["options"]["samples"]) == (False, 2)
    assert set(report()["rows"][2]["ledger"]) >= {"attack", "radius"}


def test_sea_is_given_class_weights_counted_in_the_data(place):
    assert main([*COMMAND, "--attack", "sea", "--eps", "linf=0.1", "--steps", "5"]) == 0
    (sea,) = report()["experiment"]["attacks"]
    assert sea["options"]["class_weights"] == pytest.approx([22 / 24, 22 / 20])
    assert report()["rows"][1]["pixacc"]["value"] == 16 / 22


def test_a_targeted_attack(place):
    assert main([*COMMAND, "--attack", "fgsm", "--eps", "linf=0.1", "--aim", "bright"]) == 0
    assert report()["rows"][1]["success"]["value"] == (6 + 4 + 4) / 22  # a: all but 51; b: 115 and 204; c: 204


def test_a_run_that_was_interrupted_goes_on_to_the_same_files(place, capsys, monkeypatch):
    assert main([*FGSM, "--out", "whole", "--batch-size", "1"]) == 0
    from segradius.evaluation.store import Store

    add, left = Store.add, 4

    def interrupted(*words, **more):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        add(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", interrupted)
        assert main([*FGSM, "--batch-size", "1"]) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    assert not Path("out/results.json").exists()
    assert main([*FGSM, "--batch-size", "1"]) == 0
    assert "2 of 6 results were there from an earlier run" in capsys.readouterr().out
    assert timeless(report()) == timeless(report("whole"))
    for name in ("per_image.csv", "figure.png"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def test_more_attacks_and_images_can_be_added_and_nothing_is_done_twice(place, capsys):
    first = [*COMMAND, "--eps", "linf=0.1", "--attack", "fgsm", "--limit", "2"]
    assert main(first) == 0
    assert main([*COMMAND, "--eps", "linf=0.1", "--attack", "fgsm,pgd"]) == 0
    assert "2 of 6 results were there" in capsys.readouterr().out
    assert [row["images"] for row in report()["rows"]] == [3, 3, 3, 3]


def test_another_experiment_in_the_same_folder_needs_overwrite(place, capsys):
    assert main(FGSM) == 0
    before = Path("out/results.json").read_bytes()
    assert main([*FGSM, "--seed", "1"]) == 2
    assert "out holds another experiment: seed is 1, and 0 in the earlier run" in capsys.readouterr().err
    assert Path("out/results.json").read_bytes() == before
    assert main([*FGSM, "--seed", "1", "--overwrite"]) == 0
    assert report()["experiment"]["seed"] == 1


def test_a_command_that_failed_before_any_attack_can_be_corrected_in_the_same_folder(place):
    assert main([*FGSM, "--aim", "bridht"]) == 2
    assert main([*FGSM, "--aim", "bright"]) == 0


def test_a_truncated_image_is_set_aside_by_name_and_counted(place, capsys):
    file = place / "data" / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:40])
    assert main(FGSM) == 0
    assert list(report()["set_aside"]) == ["b"]
    assert [row["images"] for row in report()["rows"]] == [2, 2, 2, 2]
    assert report()["rows"][1]["pixacc"]["value"] == 12 / 16
    assert "1 image(s) set aside" in capsys.readouterr().out


def test_an_image_that_was_mended_is_taken_in_by_the_next_run(place):
    file = place / "data" / "images" / "b.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:40])
    assert main(FGSM) == 0
    file.write_bytes(whole)
    assert main(FGSM) == 0
    assert report()["set_aside"] == {}
    assert report()["rows"][1]["pixacc"]["value"] == 16 / 22


BAD = {
    "unknown attack 'pdg'; did you mean": ["--attack", "pdg"],
    "unknown norm 'l3'": ["--norm", "l3"],
    "eps '0' is not above zero": ["--eps", "0"],
    "eps '-0.1' is not above zero": ["--eps=-0.1"],
    "takes 'samples': samples is an option of attacks guided by the radius: cr_fgsm, cr_pgd": ["--samples", "4"],
    "takes 'pgd.sigma': sigma is an option of attacks guided by the radius: cr_pgd": ["--options", "pgd.sigma=0.1"],
    "none of the attacks fgsm, pgd takes 'tile': tile is an option of bandits, local_search": ["--options", "tile=4"],
    "takes 'judge_every': judge_every is an option of bandits, dla, local_pbgd, local_search": ["--judge-every", "4"],
    "unknown data set 'data', which is a folder: write folder:data": ["--data", "data"],
    "unknown data set './data/', which is a folder: write folder:./data/": ["--data", "./data/"],
    "unknown data set 'xxx": ["--data", "x" * 300],
    "write nets.mine:threshold": ["--model", "./nets/mine.py:threshold,width=3"],
    "write mine:threshold and start in the folder /nets": ["--model", "/nets/mine.py:threshold"],
    "write mine:NAME and start in the folder ..": ["--model", "../mine.py"],
    "'steeps'": ["--options", "steeps=4"],
    "unknown data set 'folders'": ["--data", "folders:data"],
    "missing": ["--data", "folder:missing"],
    "unknown model 'dmeo'; did you mean 'demo'": ["--model", "dmeo"],
    "closed_form": ["--model", "closed_form:treshold"],
    "absent.safetensors": ["--model", "demo", "--weights", "absent.safetensors"],
    "probabilities": ["--model", "closed_form:probabilities"],
    "gives probabilities (in [0, 1], sum one": ["--model", "closed_form:steep_probabilities"],  # not sigmoids
    "NaN": ["--model", "closed_form:not_a_number"],
    "gives shape (1,); expected floating logits (1, 2, h, w)": ["--model", "closed_form:flat"],
    "num_classes=1": ["--model", "closed_form:threshold", "--num-classes", "1"],
    "unknown evaluation protocol 'paper-vok'": ["--protocol", "paper-vok"],
    "size '20'": ["--size", "20"],
    "device 'gpu'": ["--device", "gpu"],
    "unknown target 'bridht'; did you mean 'bright'": ["--aim", "bridht"],
    "target class 5 does not exist": ["--aim", "5"],
    "batch_size is 0": ["--batch-size", "0"],
    "limit is 0": ["--limit", "0"],
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_input_that_cannot_be_meant_is_one_line_naming_it_and_status_2(place, capsys, message):
    assert main([*FGSM, *BAD[message]]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path("out/results.json").exists()


def test_labels_that_no_image_can_be_used_with_are_named(place, capsys):
    (place / "data" / "segradius.yaml").write_text("classes: [dark, bright]\nignore_index: 9\n")
    for name in "ac":
        (place / "data" / "images" / f"{name}.png").unlink()
    assert main(FGSM) == 2
    error = capsys.readouterr().err
    assert "none of the images could be used; the first, b:" in error
    assert "255" in error


def test_a_yaml_file_gives_the_same_experiment_as_the_command_line(place):
    Path("experiment.yaml").write_text(
        "model: closed_form:threshold\nnum_classes: 2\ndata: folder:data\ndevice: cpu\nattack: [fgsm, pgd]\n"
        "eps: {linf: 0.1}\nout: from-yaml\n"
    )
    assert main(["attack", "--config", "experiment.yaml"]) == 0
    assert main(FGSM) == 0
    assert report("from-yaml")["identity"] == report()["identity"]


def test_a_targeted_run_says_how_much_of_the_target_there_was_before(place):
    assert main([*COMMAND, "--attack", "pgd", "--norm", "linf", "--eps", "0.1", "--aim", "Bright"]) == 0
    clean, pgd = report()["rows"][:2]
    # Of 22 labelled pixels 10 are predicted bright; four more, those of brightness 115, are raised to it.
    assert clean["success"]["value"] == 10 / 22
    assert pgd["success"]["value"] == 14 / 22


def test_probable_mistakes_are_warned_of(place, capsys):
    model = "smp:Unet,encoder_name=resnet18,encoder_weights=null,classes=3"
    where = ["--data", "folder:data", "--size", "32x32", "--device", "cpu", "--out", "out"]
    command = ["attack", "--model", model, *where]
    assert main([*command, "--attack", "fgsm", "--figures", "0"]) == 0
    said = capsys.readouterr().err
    assert "smp:Unet has no weights" in said
    assert "predicts 3 classes and the data set has 2" in said


def test_attacking_a_network_imports_nothing_that_only_others_need(tmp_path):
    program = (
        "import sys; from segradius.cli import main; "
        "main(['attack', '--model', 'demo', '--data', 'scenes:24x32', '--limit', '1', '--attack', 'fgsm', "
        f"'--figures', '0', '--out', {str(tmp_path)!r}]); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "segradius.evaluation.run" in loaded
    others = (
        "segradius.certification",
        "segradius.targets.oip",
        "segradius.models.networks",
        "segradius.models.published",
    )
    assert not [name for name in loaded if name.startswith(others)]
    slow = {"matplotlib", "scipy.stats", "sympy", "torchvision", "transformers", "torch._dynamo", "lightning_fabric"}
    assert slow.isdisjoint(loaded)


def test_every_adversarial_image_can_be_kept_as_it_was_judged_and_rounded(place):
    command = [*FGSM, "--figures", "0", "--save-images"]
    assert main(command) == main(command) == 0
    lines = list(csv.DictReader(Path("out/adversarial/manifest.csv").read_text().splitlines()))
    assert [(line["attack"], line["image"]) for line in lines] == [(n, i) for n in ("fgsm", "pgd") for i in "abc"]
    found = {
        (row["attack"], row["image"]): row for row in csv.DictReader(Path("out/per_image.csv").read_text().splitlines())
    }
    for line in lines:
        image, exact = line["image"], np.load(Path("out", line["npz"]))["adversarial"]
        clean = np.array([BRIGHTNESS[image]] * 2) / 255
        label = np.array([LABELS[image]] * 2)
        right = ((exact.mean(0) > 0.5) == label) & (label != 255)
        assert int(found[line["attack"], image]["right"]) == right.sum()
        assert float(line["length"]) == pytest.approx(np.abs(exact - clean).max(), abs=1e-7)
        levels = np.asarray(Image.open(Path("out", line["png"]))).transpose(2, 0, 1)
        assert np.array_equal(levels, np.round(exact * 255))
        assert float(line["length_png"]) == pytest.approx(np.abs(levels / 255 - clean).max(), abs=1e-7)
    assert main([*FGSM, "--figures", "0", "--overwrite"]) == 0
    assert not list(Path("out").glob("adversarial/**/*.npz"))
