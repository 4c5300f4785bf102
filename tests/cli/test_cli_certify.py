"""`segradius certify` end to end, in process and killed: the numbers are the library's, whatever happens on the way."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from PIL import Image
from served import IDS, LOCAL, furnish, loaded, place, server, stub

import segradius as sr
from segradius.certification import Adaptive, Hierarchy, Noise, PixelRadii, Sampling, SegCertify, Votes, vote
from segradius.cli import main
from segradius.cli.certify import read_region
from segradius.core.randomness import Randomness
from segradius.data import open_data
from segradius.evaluation import Store
from targets import oip_stub

__all__ = ["place"]

MODEL = ["--model", "small_net:network", "--num-classes", "3"]
FEW = ["--sigma", "0.1", "--n0", "7", "--n", "60", "--device", "cpu"]
FILES = {
    "certificates", "figure.png", "maps", "per_image.csv", "radius.png", "results.json", "results.sqlite",
    "table.md", "SHA256SUMS",
}  # fmt: skip
PROGRAM = "import sys, torch; torch.set_num_threads(1); from segradius.cli import main; sys.exit(main())"


def certify(out: str, *words: str) -> int:
    which = [] if "--target" in words else MODEL
    return main(["certify", "--data", "folder:data", *which, *FEW, *words, "--out", out])


def report(folder: str) -> dict:
    """results.json without what changes no result."""
    found = json.loads(Path(folder, "results.json").read_text())
    del found["runtime"], found["command"]
    return found


def rows(folder: str) -> dict[str, dict]:
    return {row["name"]: row for row in report(folder)["rows"]}


def results(folder: str) -> dict[str, bytes]:
    """Every file that holds results, byte by byte, without the line on when and by which command it was made."""
    files = [file for file in Path(folder).rglob("*") if file.suffix in (".npz", ".csv", ".png", ".md")]
    found = {str(file.relative_to(folder)): file.read_bytes() for file in files}
    found["table.md"] = found["table.md"].partition(b"\nMade 20")[0]
    return found


def library(folder: Path, sampling: Sampling, precision: torch.dtype | None = None) -> dict[str, Votes]:
    """The votes of every image, by the library's functions alone."""
    model = sr.wrap(loaded(folder), num_classes=3)
    data = open_data("folder:data")
    with model.frozen():
        return {
            sample.id: vote(
                lambda x: model.logits(x, precision), sample.image, 3, sampling, Randomness(0, (sample.id,))
            )
            for sample in (data[i] for i in range(len(data)))
        }


def test_the_report_says_what_the_library_says(place, capsys):
    assert certify("out", "--radii", "one") == 0
    assert {file.name for file in Path("out").iterdir()} == FILES
    votes = library(place, Sampling(Noise(0.1), 7, 60))
    data = open_data("folder:data")
    for name, test in (("segcertify", SegCertify()), ("radii", PixelRadii())):
        right = labelled = abstained = 0
        for i, image in enumerate(data.ids):
            label, expected = data[i].label, test(votes[image])
            with np.load(f"out/certificates/{image}.npz") as kept:
                assert (kept[f"{name}.class"] == expected.prediction.numpy()).all()
                assert (kept[f"{name}.radius"] == expected.radius.numpy()).all()
                assert (kept["guess"] == votes[image].guess.numpy()).all()
                assert (kept["majority"] == votes[image].majority.numpy()).all()
            counted = label != 255
            right += int((expected.prediction == label)[counted].sum())
            abstained += int((~expected.certified)[counted].sum())
            labelled += int(counted.sum())
        row = rows("out")[name]
        assert row["pixacc"]["value"] == right / labelled
        assert row["abstained"]["value"] == abstained / labelled
        assert 0 < right < labelled
    assert rows("out")["segcertify"]["radius"] == pytest.approx(0.1 * NormalDist().inv_cdf(0.75), rel=1e-6)
    told = report("out")
    assert told["ledger"] == {
        "judging": {"forward": 3, "backward": 0},
        "certification": {"forward": 3 * 67, "backward": 0},
    }
    assert told["experiment"]["smoothing"]["tau"] == 0.75
    shown = capsys.readouterr().out
    assert "With probability at least 0.999" in shown
    assert f"{100 * rows('out')['segcertify']['pixacc']['value']:.1f}" in shown


def test_void_counts_nowhere_and_boundary_and_interior_make_the_whole(place):
    assert certify("out") == 0
    lines = list(csv.DictReader(Path("out/per_image.csv").read_text().splitlines()))
    assert [line["image"] for line in lines] == [*IDS, *IDS, *IDS]
    assert {line["pixels"] for line in lines} == {"78"}  # 80, and two void
    assert {(line["copies"], line["forward"]) for line in lines} == {("67", "68")}
    for row in report("out")["rows"]:
        mine = [line for line in lines if line["answer"] == row["name"]]
        edge = sum(int(line["boundary"]) for line in mine)
        inner = sum(int(line["pixels"]) for line in mine) - edge
        right = sum(int(line["right"]) for line in mine)
        parts = (edge and edge * row["boundary"]["value"]) + (inner and inner * row["interior"]["value"])
        assert parts == pytest.approx(right)
        assert sum(each["pixels"] for each in row["classes"]) == 3 * 78
        assert sum(each["pixels"] * (each["accuracy"] or 0) for each in row["classes"]) == pytest.approx(right)


def test_the_curve_starts_at_the_certified_accuracy_and_falls(place):
    assert certify("out", "--radii", "two") == 0
    for name in ("segcertify", "radii"):
        row = rows("out")[name]
        accuracy = row["curve"]["accuracy"]
        assert accuracy[0] == pytest.approx(row["pixacc"]["value"])
        assert accuracy == sorted(accuracy, reverse=True)
        assert accuracy[-1] == 0
        assert all(right <= all_ for right, all_ in zip(row["curve"]["right"], row["curve"]["certified"], strict=True))


def test_maps_have_the_classes_colours_and_white_where_abstained(place):
    assert certify("out") == 0
    palette = np.array(open_data("folder:data").classes.palette, dtype=np.uint8)
    for image in IDS:
        with np.load(f"out/certificates/{image}.npz") as kept, Image.open(f"out/maps/{image}.png") as picture:
            classes, colours = kept["segcertify.class"], np.array(picture)
        assert (colours[classes == -1] == 255).all()
        assert (colours[classes >= 0] == palette[classes[classes >= 0]]).all()


@pytest.mark.parametrize("size", ["1", "64"])
def test_copies_in_a_pass_change_nothing(place, size: str):
    assert certify("usual") == 0
    assert certify("other", "--batch-size", size) == 0
    assert results("usual") == results("other")
    assert report("usual") == report("other")


def test_the_same_command_does_nothing_twice_and_more_images_are_added(place, capsys):
    assert certify("parts", "--limit", "2") == 0
    times = {file: file.stat().st_mtime_ns for file in Path("parts/certificates").iterdir()}
    capsys.readouterr()
    assert certify("parts") == 0
    assert "2 of 3 images were there" in capsys.readouterr().out
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    assert certify("whole") == 0
    assert results("parts") == results("whole")
    assert report("parts") == report("whole")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sigma", "0.2"], "smoothing.sigma is 0.2, and 0.1 in the earlier run"),
        (["--n", "61"], "smoothing.n is 61, and 60"),
        (["--seed", "1"], "seed is 1, and 0"),
        (["--limit", "2"], "data.limit is 2, and null"),
        (["--correction", "bonferroni"], 'smoothing.correction is "bonferroni", and "holm"'),
    ],
)
def test_another_experiment_is_refused_and_replaced_when_told(place, capsys, words, told):
    assert certify("out") == 0
    before = results("out")
    assert certify("out", *words) == 2
    assert told in capsys.readouterr().err
    assert results("out") == before
    assert certify("out", *words, "--overwrite") == 0
    assert certify("new", *words) == 0
    assert results("out") == results("new")


def test_attack_and_certify_leave_each_others_folders_alone(place, capsys):
    attack = ["attack", *MODEL, "--data", "folder:data", "--attack", "fgsm", "--eps", "linf=0.1", "--out", "out"]
    assert main(attack) == 0
    assert certify("out") == 2
    assert "out holds another experiment: that of segradius attack" in capsys.readouterr().err
    assert certify("out", "--overwrite") == 0
    assert {file.name for file in Path("out").iterdir()} == FILES
    assert main(attack) == 2
    assert "out holds another experiment: that of segradius certify" in capsys.readouterr().err
    assert main([*attack, "--overwrite"]) == 0
    assert not Path("out/radius.png").exists()
    assert certify("out") == 2


def test_overwriting_removes_nothing_that_is_not_ours(place):
    Path("out/maps").mkdir(parents=True)
    Path("out/maps/mine.png").write_bytes(b"mine")
    assert certify("out", "--overwrite") == 0
    assert Path("out/maps/mine.png").read_bytes() == b"mine"


def test_early_stop_draws_fewer_copies_and_counts_them(place):
    words = ["--n", "1000", "--early-stop", "0.5", "--tau", "0.6"]
    assert certify("out", *words) == 0
    test = SegCertify(0.6)
    votes = library(place, Sampling(Noise(0.1), 7, 1000, enough=test.decided(1000, 0.5)))
    drawn = sum(7 + each.n for each in votes.values())
    assert drawn < 3 * 1007
    assert report("out")["ledger"]["certification"]["forward"] == drawn
    for image, each in votes.items():
        with np.load(f"out/certificates/{image}.npz") as kept:
            assert (kept["segcertify.class"] == test(each).prediction.numpy()).all()


def test_a_hierarchy_certifies_groups(place):
    Path("groups.yaml").write_text("first: [x, y]\n")
    assert certify("out", "--hierarchy", "groups.yaml") == 0
    hierarchy = Hierarchy.of(("x", "y", "z"), [{"first": ["x", "y"]}])
    votes, data = library(place, Sampling(Noise(0.1), 7, 60)), open_data("folder:data")
    right = 0
    for i, image in enumerate(data.ids):
        expected = Adaptive(SegCertify(), hierarchy)(votes[image])
        with np.load(f"out/certificates/{image}.npz") as kept:
            assert (kept["adaptive.class"] == expected.prediction.numpy()).all()
            assert (kept["adaptive.level"] == expected.level.numpy()).all()
        label = data[i].label
        groups = torch.tensor(hierarchy.levels)
        same = groups[expected.level, expected.guess] == groups[expected.level, label.clamp_max(2)]
        right += int((same & expected.certified & (label != 255)).sum())
    assert rows("out")["adaptive"]["pixacc"]["value"] == right / (3 * 78)
    assert rows("out")["adaptive"]["gain"] <= right / (3 * 78)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("first: [x, w]\n", "unknown class 'w'"),
        ("- first: [x]\n  second: [x]\n", "the class x is in two groups"),
        ("- first: [x, y]\n- other: [y, z]\n", "splits a group"),
        ("[x, y]\n", "expected a mapping from each group to a list of its classes"),
        ("first: x\n", "expected a mapping from each group to a list of its classes"),
        ("{", "groups.yaml is no valid YAML"),
    ],
)
def test_a_bad_hierarchy_is_named(place, capsys, text, told):
    Path("groups.yaml").write_text(text)
    assert certify("out", "--hierarchy", "groups.yaml") == 2
    assert told in capsys.readouterr().err
    assert not Path("out/certificates").exists()


def test_a_region_confines_the_noise(place, capsys):
    mask = np.zeros((8, 10), np.uint8)
    mask[2:5, 3:7] = 255
    Image.fromarray(mask).save("region.png")
    assert certify("out", "--region", "region.png") == 0
    votes = library(place, Sampling(Noise(0.1, where=torch.from_numpy(mask > 0)), 7, 60))
    for image, each in votes.items():
        with np.load(f"out/certificates/{image}.npz") as kept:
            assert (kept["segcertify.class"] == SegCertify()(each).prediction.numpy()).all()
    assert "inside the region" in capsys.readouterr().out
    mask[2, 3] = 0
    Image.fromarray(mask).save("region.png")
    assert certify("out", "--region", "region.png") == 2
    assert "smoothing.region" in capsys.readouterr().err
    Image.fromarray(np.zeros_like(mask)).save("region.png")
    assert certify("out", "--region", "region.png") == 2
    assert "is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the region region.png: the file is missing"),
        (b"<html>", "the region region.png: the file cannot be read: it is no PNG"),
        ("JPEG", "the region region.png: the mask has lossy compression"),
        ("pages", "the region region.png: the file holds 2 pictures"),
        ("large", "the region region.png: it has 8×10 = 80 pixels; at most 79 are decoded"),
    ],
)
def test_a_region_that_cannot_be_read_exactly_is_refused(place, capsys, monkeypatch, content, told):
    image = Image.new("L", (10, 8), 255)
    if isinstance(content, bytes):
        Path("region.png").write_bytes(content)
    elif content == "pages":
        image.save("region.png", "TIFF", save_all=True, append_images=[image])
    elif content is not None:
        image.save("region.png", "JPEG" if content == "JPEG" else "PNG")
    if content == "large":
        monkeypatch.setenv("SEGRADIUS_MAX_PIXELS", "79")
    assert certify("out", "--region", "region.png") == 2
    assert told in capsys.readouterr().err


def test_a_region_in_colour_is_wherever_it_is_not_black(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1, 2] = 1
    Image.fromarray(pixels).save(tmp_path / "region.png")
    assert read_region(str(tmp_path / "region.png")).tolist() == [[False, True, False], [False] * 3]


def test_bfloat16_and_clamping_are_other_smoothed_models(place):
    assert certify("out", "--precision", "bfloat16", "--clamp") == 0
    votes = library(place, Sampling(Noise(0.1, clamp=True), 7, 60), torch.bfloat16)
    for image, each in votes.items():
        with np.load(f"out/certificates/{image}.npz") as kept:
            assert (kept["majority"] == each.majority.numpy()).all()


@pytest.mark.parametrize("times", [1.04, 1.5])
def test_a_precision_that_is_slower_is_told(place, capsys, monkeypatch, times):
    monkeypatch.setattr("segradius.evaluation.certify.slowdown", lambda *given: times)
    assert certify("out", "--precision", "bfloat16", "--limit", "1") == 0
    assert ("a pass takes 1.5 times as long in bfloat16 as in float32" in capsys.readouterr().err) == (times == 1.5)


def test_too_few_copies_are_told_before_they_are_drawn(place, capsys):
    """80 pixels, τ = ¾: 0.75ⁿ ≤ 0.001 / 80 first holds at n = 40."""
    assert certify("few", "--n", "39") == 2
    assert "--n 40 is the least" in capsys.readouterr().err
    assert certify("own", "--n", "39", "--radii", "one") == 0  # they need fewer, so it is only told
    assert "--n 40 is the least" in capsys.readouterr().err
    assert rows("own")["segcertify"]["abstained"]["value"] == 1
    assert rows("own")["radii"]["abstained"]["value"] < 1
    assert certify("enough", "--n", "40") == 0
    assert "the least" not in capsys.readouterr().err


BROKEN = """
import torch
from small_net import network

def broken():
    '''NaN on a nearly black image, though not on a black one.'''
    net = network()
    def answer(x):
        mean = x.mean((1, 2, 3), keepdim=True).abs()
        return net(x).masked_fill((mean > 0) & (mean < 0.1), float("nan"))
    return answer
"""


def test_an_image_with_nan_under_noise_is_in_no_figure(place, capsys):
    Path("broken_net.py").write_text(BROKEN)
    Image.new("RGB", (10, 8)).save("data/images/b.png")
    command = ["certify", "--model", "broken_net:broken", "--num-classes", "3", "--data", "folder:data", *FEW]
    assert main([*command, "--out", "out"]) == 0
    told = report("out")
    assert (told["images"], told["invalid"]) == (2, ["b"])
    assert told["ledger"]["certification"]["forward"] == 3 * 67
    assert sum(each["pixels"] for each in told["rows"][0]["classes"]) == 2 * 78
    assert "1 image(s) gave NaN or infinite answers" in capsys.readouterr().out
    with np.load("out/certificates/b.npz") as kept:
        assert (kept["segcertify.class"] == -1).all()
    for image in ("a", "c"):
        Path("data/images", f"{image}.png").unlink()
        Path("data/masks", f"{image}.png").unlink()
    assert main([*command, "--out", "none"]) == 2
    assert "none of the images could be used" in capsys.readouterr().err


def test_an_unreadable_image_is_set_aside_and_taken_up_once_mended(place, capsys):
    good = Path("data/images/b.png").read_bytes()
    Path("data/images/b.png").write_bytes(good[:40])
    assert certify("out") == 0
    assert list(report("out")["set_aside"]) == ["b"]
    assert report("out")["images"] == 2
    assert "1 image(s) set aside" in capsys.readouterr().out
    Path("data/images/b.png").write_bytes(good)
    assert certify("out") == 0
    assert certify("whole") == 0
    assert results("out") == results("whole")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sigma", "0"], "sigma is 0"),
        (["--sigma", "x"], "sigma is 'x'; expected a number"),
        (["--tau", "0.4"], "tau is 0.4"),
        (["--alpha", "1"], "alpha is 1"),
        (["--n", "0"], "n is 0"),
        (["--correction", "homl"], "did you mean 'holm'"),
        (["--k", "2"], "k is 2, which does nothing here: it is for correction=kfwer"),
        (["--early-stop", "1"], "early_stop is 1"),
        (["--early-stop", "0.1", "--radii", "soft", "--bound", "bernstein"], "bernstein needs a number of copies"),
        (["--minutes", "1", "--radii", "soft", "--bound", "hoeffding"], "hoeffding needs a number of copies"),
        (["--radii", "soft", "--bound", "student"], "student"),
        (["--bound", "bernstein"], "bound is 'bernstein', which does nothing here: it is for radii=soft"),
        (["--minutes", "0"], "minutes is 0"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--target", *LOCAL[1:2], "--num-classes", "3", "--precision", "bfloat16"], "precision bfloat16 is for"),
    ],
)
def test_what_cannot_be_is_refused(place, capsys, words, told):
    assert certify("out", *words) == 2
    assert told in capsys.readouterr().err


def test_options_from_a_file(place):
    Path("c.yaml").write_text(
        "model: small_net:network\nnum_classes: 3\ndata: folder:data\nsigma: 0.1\nn0: 7\nn: 60\ndevice: cpu\n"
        "hierarchy:\n- first: [x, y]\n"
    )
    assert main(["certify", "--config", "c.yaml", "--out", "file"]) == 0
    Path("groups.yaml").write_text("first: [x, y]\n")
    assert certify("words", "--hierarchy", "groups.yaml") == 0
    assert results("file") == results("words")
    assert report("file") == report("words")


def test_a_target_gives_the_networks_certificates_and_counts_each_copy(place):
    assert certify("model") == 0
    assert certify("target", *LOCAL) == 0
    with oip_stub.serving(stub(place)) as served:
        assert certify("served", *server(served.url, "batch=4")) == 0
        assert sum(served.images) == 3 * 68
    for name in ("target", "served"):
        assert rows(name) == rows("model")
        answered = json.loads(Path(name, "results.json").read_text())["runtime"]["target"]["answered"]
        assert answered == 3 * 68 == sum(book["forward"] for book in report(name)["ledger"].values())


@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_a_server_is_asked_nothing_twice_when_a_budget_runs_out_on_the_way(place, capsys, seconds: str):
    few = ["--n0", "4", "--n", "16", "--tau", "0.5", "--correction", "none"]
    with oip_stub.serving(stub(place)) as fine:
        assert certify("whole", *server(fine.url, "batch=4"), *few) == 0
    with oip_stub.serving(stub(place)) as served:
        words = [*server(served.url, "batch=4"), "--checkpoint-seconds", seconds, *few]
        assert certify("parts", *words, "--budget", "30") == 2
        assert "with a larger --budget" in capsys.readouterr().err
        assert certify("parts", *words, "--budget", str(3 * 21)) == 0
        assert served.answered == fine.answered
    parts, whole = results("parts"), results("whole")
    for found in (parts, whole):  # the first line names the server, by its address
        found["table.md"] = found["table.md"].partition(b"\n")[2]
    assert parts == whole
    assert json.loads(Path("parts/results.json").read_text())["runtime"]["target"]["answered"] == 3 * 21


def test_an_onnx_file_votes_as_the_network(place):
    for library_ in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library_)
    sr.models.export_onnx(sr.wrap(loaded(place), num_classes=3), place / "net.onnx", 8, 10)
    assert certify("model") == 0
    assert certify("file", "--target", "onnx:net.onnx") == 0
    for image in IDS:
        with np.load(f"model/certificates/{image}.npz") as mine, np.load(f"file/certificates/{image}.npz") as its:
            assert (mine["majority"] == its["majority"]).all()
            assert (mine["segcertify.class"] == its["segcertify.class"]).all()


def stored() -> bool:
    """Whether the store of the folder ``parts`` holds a certificate."""
    if not Path("parts/results.sqlite").exists():
        return False
    with Store(Path("parts/results.sqlite")) as store:
        return store.is_begun()


@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_a_killed_run_goes_on_to_the_same_bytes(place, seconds: str):
    """Killed in the middle of an image's votes, with checkpoints of every pass and without any."""
    words = ["--batch-size", "1", "--limit", "2"]
    assert certify("whole", *words) == 0
    source = Path(sr.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(source), str(Path.cwd())]),
        "OMP_NUM_THREADS": "1",
    }
    command = ["certify", "--data", "folder:data", *MODEL, *FEW, *words, "--out", "parts"]
    command += ["--checkpoint-seconds", seconds]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (any(Path("parts/checkpoints").glob("[!.]*")) if seconds == "0" else stored()):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not Path("parts/results.json").exists()
    assert certify("parts", *words) == 0
    assert results("parts") == results("whole")
    assert report("parts") == report("whole")
    assert not Path("parts/checkpoints").exists()


@pytest.mark.parametrize("words", [[], ["--attack", "pgd", "--steps", "1", "--check-copies", "9"]])
def test_a_folder_of_an_earlier_version_which_has_no_store_is_gone_on_with(place, capsys, monkeypatch, words):
    assert certify("whole", "--radii", "one", *words) == 0
    before = results("whole")
    shutil.copytree("whole", "old")
    Path("old/results.sqlite").unlink()
    Path("old/experiment.json").write_text(json.dumps(report("whole")["experiment"]))
    assert certify("old", "--radii", "two", *words) == 2
    assert 'smoothing.radii is "two"' in capsys.readouterr().err
    unfinished = Path("old/certificates/c.npz")
    with np.load(unfinished) as found:
        numbers = json.loads(str(found["numbers"]))
        numbers = {name: numbers[name] for name in ("image", "base")} | {"done": False}
        numbers["passes"] = {"judging": {"forward": 1, "backward": 0}}
        np.savez_compressed(unfinished, base=found["base"], numbers=np.array(json.dumps(numbers)))
    with monkeypatch.context() as patch:
        certified = []
        patch.setattr(
            "segradius.evaluation.certify_options.vote",
            lambda *given, **named: certified.append(given[4].ids) or vote(*given, **named),
        )
        assert certify("old", "--radii", "one", *words) == 0
    assert certified == [("c",)]
    assert results("old") == before
    assert report("old") == report("whole")
    assert not Path("old/experiment.json").exists()


def test_furnish_makes_images_with_void_pixels(tmp_path, monkeypatch):
    """What the tests above count on."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = open_data("folder:data")
    assert [int((data[i].label == 255).sum()) for i in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gap", "0.5"], "gap is 0.5, which does nothing here: it is for hierarchy given"),
        (["--share", "0.5"], "share is for --attack"),
        (["--check-copies", "50"], "check_copies is for --attack"),
        (["--weakest", "3"], "weakest is for --attack"),
    ],
)
def test_an_option_without_effect_is_refused(place, capsys, options: list[str], message: str):
    assert certify("out", *options) == 2
    assert message in capsys.readouterr().err


def test_a_sigma_of_another_scale_is_told(place, capsys):
    assert certify("out", "--sigma", "32") == 0
    assert "was 32/255 meant" in capsys.readouterr().err


def test_the_table_says_what_was_certified_and_the_record_lets_it_be_checked(place):
    from scipy.stats import binom

    assert certify("out", "--correction", "bonferroni") == 0
    told = Path("out/table.md").read_text().splitlines()[0]
    for part in ("σ = ", "n₀ = ", "α = 0.001", "τ = 0.75", "bonferroni", "seed 0", "float32"):
        assert part in told
    n = json.loads(Path("out/results.json").read_text())["experiment"]["smoothing"]["n"]
    for file in Path("out/certificates").glob("*.npz"):
        with np.load(file) as record:
            p = binom.sf(record["votes"] - 1, n, 0.75)
            assert ((record["segcertify.class"] >= 0) == (p <= 0.001 / p.size)).all()


LIPSCHITZ = ["certify", "--model", "lipschitz_unet,num_classes=8,widths=[8,8],blocks=[1,1]", "--data", "scenes:24x32"]


def test_a_lipschitz_constant_is_verified_or_of_the_card_and_no_noise_is_drawn(tmp_path, capsys):
    for given in ("verified", "card", "1"):
        out = str(tmp_path / given)
        words = ["--limit", "2", "--lipschitz", given, "--certified-eps", "0.1,0.3", "--attack", "pgd", "--steps", "2"]
        assert main([*LIPSCHITZ, *words, "--out", out]) == 0
        report = json.loads((tmp_path / given / "results.json").read_text())
        it = report["experiment"]["lipschitz"]
        assert it["lipschitz"] == pytest.approx(1, abs=1e-4)
        assert (it["source"], it["eps"]) == ("stated" if given == "1" else given, [0.1, 0.3])
        assert (it["size"] is not None) == (given == "verified")
        assert report["copies"] == 0
        assert [row["eps"] for row in report["whole"]["rows"]] == [0.1, 0.3]
        assert not any(row["contradicted"] for row in report["attacked"])
    assert "bounded over" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--lipschitz", "card"], "states no Lipschitz constant in its card"),
        (["--lipschitz", "verified", "--denoiser", "blur"], "is behind a denoiser"),
        (["--lipschitz", "1", "--sigma", "0.1"], "sigma is for certificates by noise"),
        (["--lipschitz", "1", "--attack", "pgd", "--samples", "3"], "samples is for attacks on certificates by noise"),
        (["--lipschitz", "many"], "lipschitz is 'many'"),
        (["--certified-eps", "0.1"], "certified-eps is for --lipschitz"),
    ],
)
def test_what_a_lipschitz_constant_does_not_go_with_is_refused(tmp_path, capsys, words, told):
    demo = ["certify", "--model", "demo", "--data", "scenes:24x32", "--limit", "1", "--out", str(tmp_path / "out")]
    assert main([*demo, *words]) == 2
    assert told in capsys.readouterr().err
