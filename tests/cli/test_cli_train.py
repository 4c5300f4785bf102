"""`segradius train`: options arrive where they belong, and a model comes out that every other command takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import segradius as sr
from segradius.cli import build_parser, main
from segradius.data import open_data
from segradius.threats.threat import parse_eps
from segradius.training import (
    Augmentation,
    Engine,
    Evaluation,
    Job,
    Ohem,
    Optimiser,
    Pace,
    Recipe,
    SegmentationLoss,
    Watch,
    WeightAverage,
    make_adversary,
)
from segradius.training.learner import export
from segradius.training.recipe import OneCycle, Poly

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SCENES = ["--data", "scenes:32x48,8", "--held-out-limit", "2"]

NETWORK = """
import segradius as sr
from torch import nn

def tiny():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(8, 8, 1)]
    return sr.wrap(nn.Sequential(*layers), num_classes=8, normalisation="imagenet")

class Own(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 8, 1)

def function():
    return sr.wrap(lambda images: images.repeat(1, 3, 1, 1)[:, :8], num_classes=8)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``nets_to_train.py`` and a configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_to_train.py").write_text(NETWORK)
    config = {"model": "nets_to_train:tiny", "epochs": 1, "batch_size": 4, "crop": "24x32", "scale": [0.75, 1.5]}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(config | {"adversary": "fast_adt", "device": "cpu"}))
    return tmp_path


def command(*more: str) -> list[str]:
    return ["train", "--config", "plain.yaml", *SCENES, "--out", "out", *more]


def test_a_model_comes_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("--average", "0.5")) == 0
    printed = capsys.readouterr().out
    assert "best (epoch 1, by PixAcc under PGD): pixacc" in printed
    assert "last (epoch 1): pixacc" in printed
    assert "out/best.yaml" in printed
    assert "pixacc_pgd" in printed
    image = open_data("scenes:32x48", split="test")[0].image[None]
    for name in ("best", "last"):
        card, weights = sr.load_model(f"out/{name}.yaml"), load_file(f"out/{name}.safetensors")
        plain = sr.load_model("nets_to_train:tiny")
        plain.network.load_state_dict(weights)
        assert torch.equal(card.logits(image), plain.logits(image))
        assert yaml.safe_load((place / "out" / f"{name}.yaml").read_text())["classes"][0] == "sky"
    attack = ["attack", "--model", "out/best.yaml", "--data", "scenes:32x48", "--limit", "1", "--attack", "fgsm"]
    assert main([*attack, "--device", "cpu", "--out", "attacked"]) == 0


def test_processes_find_a_network_of_the_working_folder() -> None:
    assert main(command("--model", "nets_to_train:Own", "--devices", "2", "--adversary", "none")) == 0
    assert load_file("out/last.safetensors")["weight"].shape == (8, 3, 1, 1)


def test_what_the_best_is_best_by_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["--model", "nets_to_train:tiny", "--epochs", "1", "--batch-size", "4", "--crop", "24x32"]
    for options, told in (([], "PixAcc"), (["--best", "miou"], "MIoU")):
        assert main(["train", *plain, *SCENES, "--out", told, *options]) == 0
        assert f"best (epoch 1, by {told}): pixacc" in capsys.readouterr().out


def test_a_finished_run_changes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()}

    assert main(command()) == 0
    before, printed = files(), capsys.readouterr().out
    assert main(command()) == 0
    assert files() == before
    assert capsys.readouterr().out == printed
    assert main(command("--lr", "0.5")) == 2
    assert "out holds another run" in capsys.readouterr().err
    assert files() == before


def test_the_seed_decides_the_first_weights_too() -> None:
    found = []
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["train", "--config", "plain.yaml", *SCENES, "--seed", seed, "--out", out]) == 0
        found.append(load_file(f"{out}/last.safetensors")["0.weight"])
    assert torch.equal(found[0], found[1])
    assert (found[0] - found[2]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "nets_to_train:absent"], "absent"),
        (["--model", "nets_to_train:function"], "cannot be trained"),
        (["--weights", "absent.safetensors"], "absent.safetensors"),
        (["--split", "holiday"], "holiday"),
        (["--held-out-limit", "0"], "held_out_limit is 0"),
        (["--crop", "24"], "size '24'"),
        (["--crop", "null"], "give a crop"),
        (["--scale", "2"], "scale"),
        (["--scale", "1,2,3"], "scale"),
        (["--scale", "big,small"], "scale"),
        (["--scale", "2,1"], "scale"),
        (["--schedule-options", "speed=2"], "speed"),
        (["--schedule-options", "power=-1"], "power is -1"),
        (["--adversary", "fast"], "fast_adt"),
        (["--options", "steps=3"], "steps"),
        (["--options", "3"], "has no name"),
        (["--eps", "many"], "many"),
        (["--eps", "8"], "8/255"),
        (["--mix", "2"], "mix"),
        (["--average", "1"], "average"),
        (["--ohem", "2"], "ohem"),
        (["--flip", "2"], "flip"),
        (["--lr", "-1"], "lr"),
        (["--epochs", "0"], "epochs"),
        (["--epochs", "x"], "epochs is"),
        (["--batch-size", "9"], "batch_size is 9"),
        (["--devices", "3", "--held-out-limit", "8"], "no multiple of 3"),
        (["--devices", "4"], "2 images for 4 processes"),
        (["--workers", "-1"], "workers"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_options_exit_with_2_and_a_message(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(*options)) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("segradius: error: ")  # after how many images there are
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("options", [["--optimiser", "adam"], ["--precision", "64"], ["--speed", "2"]])
def test_options_that_do_not_parse_exit_with_2(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command(*options))
    assert stop.value.code == 2
    assert options[0].lstrip("-") in capsys.readouterr().err


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were made, none of which is run."""
    made: list[Job] = []

    def remember(job: Job) -> Evaluation:
        made.append(job)
        job.folder.mkdir()
        assert isinstance(job.model.network, nn.Module)
        for name in ("best", "last"):
            export(job.model.network, job.folder / f"{name}.safetensors")
        return Evaluation(1, 1, 0.5, 0.25, 0.125)

    monkeypatch.setattr("segradius.training.fit", remember)
    return made


def test_defaults_are_the_public_recipe(jobs: list[Job]) -> None:
    given = ["--model", "nets_to_train:tiny", "--data", "scenes:32x48", "--size", "16x24", "--out", "out"]
    assert main(["train", *given]) == 0
    job = jobs[0]
    assert job.recipe == Recipe(augmentation=Augmentation((16, 24)), loss=SegmentationLoss(ignore_index=255))
    assert (job.engine, job.watch, job.folder) == (Engine(), None, Path("out"))
    assert (job.train.name, job.held_out.name) == ("scenes/train", "scenes/val")
    assert tuple(job.train[0].image.shape) == tuple(job.held_out[0].image.shape) == (3, 16, 24)


def test_every_option_arrives(jobs: list[Job]) -> None:
    options = {
        "held-out": "test", "epochs": "7", "batch-size": "6", "crop": "24x40", "scale": "0.5,1.25", "rotate": "5",
        "blur": "0.25", "flip": "0", "optimiser": "sgd", "lr": "0.002", "momentum": "0.5", "weight-decay": "0.01",
        "clip": "1.5", "schedule": "one_cycle", "schedule-options": "warmup_share=0.2,start=10", "aux-weight": "0.3",
        "ohem": "0.6", "ohem-keep": "50", "average": "0.97", "adversary": "cr_pgd_at", "norm": "l2", "eps": "3/2",
        "mix": "0.5", "options": "steps=2,samples=0", "every": "3", "precision": "bf16", "seed": "5", "device": "cpu",
        "devices": "2", "workers": "1", "save-every": "9", "memory": "1.5", "speed": "exact", "temperature": "20",
    }  # fmt: skip
    assert main([*command(*(w for key, value in options.items() for w in (f"--{key}", value))), "--in-memory"]) == 0
    job = jobs[0]
    assert job.recipe == Recipe(
        epochs=7,
        batch_size=6,
        optimiser=Optimiser("sgd", 0.002, 0.5, 0.01, 1.5, fused=True),
        schedule=OneCycle(warmup_share=0.2, start=10),
        augmentation=Augmentation((24, 40), (0.5, 1.25), 5.0, 0.5, 0.25, 0.0),
        loss=SegmentationLoss(0.3, None, Ohem(0.6, 50), 255, 20.0),
        adversary=make_adversary("cr_pgd_at", norm="l2", eps=1.5, mix=0.5, steps=2, samples=0),
        average=WeightAverage(0.97),
        precision="bf16",
        seed=5,
        every=3,
        pace=Pace(True, twin=True),
    )
    assert job.engine == Engine("cpu", devices=2, workers=1, in_memory=True, save_every=9, memory=1.5)
    assert job.watch == Watch("l2", 1.5)
    assert job.held_out.name == "scenes/test"
    assert job.held_out.ids == ("test-00000", "test-00004")


@pytest.mark.parametrize(
    ("options", "precision", "fused", "pace"),
    [
        (["--speed", "plain"], "32", False, Pace()),
        (["--speed", "exact", "--precision", "bf16"], "bf16", True, Pace(True, twin=True)),
        (["--speed", "fast"], "auto", True, Pace(True, twin=True)),
        (["--speed", "fast", "--precision", "32"], "32", True, Pace(True, twin=True)),
        (["--speed", "fast", "--precision", "16", "--clip", "1"], "16", False, Pace(True, twin=True)),
        (["--compile"], "32", False, Pace(compile=True)),
    ],
)
def test_speed_is_layout_optimiser_and_precision(
    jobs: list[Job], options: list[str], precision: str, fused: bool, pace: Pace
) -> None:
    assert main(command(*options)) == 0
    recipe = jobs[0].recipe
    assert (recipe.precision, recipe.optimiser.fused, recipe.pace) == (precision, fused, pace)


def test_a_trial_decides_on_bfloat16_and_a_run_goes_on_with_what_it_decided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for ratio, chosen in ((0.5, "bf16"), (0.97, "32"), (1.4, "32")):
        monkeypatch.setattr("segradius.training.trial.bf16_ratio", lambda job, ratio=ratio: ratio)
        fast = [*command("--speed", "fast", "--adversary", "none"), "--out", chosen + str(ratio)]
        assert main(fast) == 0
        assert f"take {ratio:.2f} of the time of those in float32: precision {chosen}" in capsys.readouterr().err
        monkeypatch.setattr("segradius.training.trial.bf16_ratio", lambda job: 1 / 0)
        assert main(fast) == 0  # the folder says it


def test_a_file_says_what_the_command_line_says(jobs: list[Job], place: Path) -> None:
    config = {
        "model": "nets_to_train:tiny", "data": "scenes:32x48", "scale": None, "schedule": "poly", "eps": "4/255",
        "schedule_options": {"power": 2.0}, "adversary": "pgd_at", "options": {"steps": 4}, "in_memory": True,
    }  # fmt: skip
    (place / "file.yaml").write_text(yaml.safe_dump(config))
    line = ["--model", "nets_to_train:tiny", "--data", "scenes:32x48", "--scale", "null", "--eps", "4/255"]
    line += ["--schedule-options", "power=2.0", "--adversary", "pgd_at", "--options", "steps=4", "--in-memory"]
    assert main(["train", "--config", "file.yaml", "--out", "one"]) == 0
    assert main(["train", *line, "--out", "two"]) == 0
    assert jobs[0].recipe == jobs[1].recipe
    assert jobs[0].recipe.schedule == Poly(power=2.0)
    assert jobs[0].recipe.augmentation.scale is None
    assert (jobs[0].engine, jobs[0].watch) == (jobs[1].engine, jobs[1].watch) == (Engine(in_memory=True), jobs[1].watch)


def test_watching_is_on_under_attack_or_when_asked_for(jobs: list[Job]) -> None:
    clean = ["train", "--model", "nets_to_train:tiny", "--data", "scenes:32x48", "--crop", "16x16", "--out"]
    assert main([*clean, "a", "--adversary", "gaussian", "--options", "sigma=0.5"]) == 0
    assert main([*clean, "b", "--watch"]) == 0
    assert main([*clean, "c", "--adversary", "segpgd_at", "--mix", "0.5"]) == 0
    assert [job.watch for job in jobs] == [None, Watch("linf"), Watch("linf")]


def test_balanced_weights_are_one_over_frequency(jobs: list[Job]) -> None:
    assert main(command("--class-weights", "balanced")) == 0
    labels = torch.stack([jobs[0].train[i].label for i in range(8)])
    counts = torch.bincount(labels[labels != 255], minlength=8).double()
    weights = torch.tensor(jobs[0].recipe.loss.class_weights, dtype=torch.float64)
    products = (weights * counts)[counts > 0]
    torch.testing.assert_close(products / products[0], torch.ones_like(products), rtol=1e-6, atol=0)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_configurations_are_understood(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    required = [w for key in ("model", "data", "out") if key not in content for w in (f"--{key}", "x")]
    found = build_parser().parse_args(["train", "--config", str(path), *required])["train"]
    assert set(content) <= set(vars(found))
    assert {key: found[key] for key in content} == content
    budget = None if found["eps"] is None else parse_eps(found["eps"])
    make_adversary(
        found["adversary"], norm=found["norm"] or "linf", eps=budget, mix=found["mix"], **(found["options"] or {})
    )
    Augmentation(scale=tuple(found["scale"]) if isinstance(found["scale"], list) else (0.5, 2.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--eps", "0.1"], "give --adversary"),
        (["--mix", "0.5"], "give --adversary"),
        (["--adversary", "fast_adt", "--norm", "linf", "--eps", "l2=1.5"], "another norm than linf"),
        (["--schedule-options", "warmpu=3"], "did you mean 'warmup'"),
        (["--num-classes", "5"], "give the model num_classes=8"),
        (["--model", "pspnet_light,num_class=8"], "did you mean 'num_classes'"),
    ],
)
def test_what_would_be_lost_without_a_word_is_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", "nets_to_train:tiny", "--data", "scenes:32x48,8", "--crop", "16x16", "--out", "out"]
    assert main(["train", *given, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_budget_may_name_its_norm(jobs: list[Job]) -> None:
    given = ["--model", "nets_to_train:tiny", "--data", "scenes:32x48", "--size", "16x24", "--out", "out"]
    assert main(["train", *given, "--adversary", "fast_adt", "--eps", "l2=1.5"]) == 0
    assert jobs[0].watch == Watch("l2", 1.5)
    assert jobs[0].recipe.every == 1
    assert jobs[0].recipe.adversary == make_adversary("fast_adt", norm="l2", eps=1.5)


def test_a_normalisation_is_part_of_the_card(place: Path) -> None:
    (place / "bare.py").write_text("from torch import nn\n\ndef net():\n    return nn.Conv2d(3, 8, 1)\n")
    given = ["--model", "bare:net", "--data", "scenes:32x48,8", "--held-out-limit", "2", "--epochs", "1"]
    more = ["--batch-size", "4", "--crop", "24x32", "--normalisation", "imagenet", "--device", "cpu", "--out", "out"]
    assert main(["train", *given, *more]) == 0
    card = yaml.safe_load((place / "out" / "best.yaml").read_text())
    assert card["normalisation"] == "imagenet"
    assert "scenes/train" in card["source"]
    assert sr.load_model("out/best.yaml").normalisation == sr.load_model("demo").normalisation
