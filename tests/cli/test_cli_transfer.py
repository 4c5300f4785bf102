"""`segradius attack --from` and `segradius transfer`: one verdict an image, resumable, the same whoever works."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import segradius as sr
from segradius.cli import main
from segradius.evaluation import Store
from segradius.evaluation.reread import experiment_of
from segradius.evaluation.study import Study
from segradius.report.transfer import OTHERS, matrices

COMMON = ["--data=scenes:24x32", "--device=cpu", "--figures=0", "--attack=pgd", "--eps=1.0"]


def card(name: str, seed: int) -> None:
    """The demo network with its weights shaken a little, so that it is another one which sees much the same."""
    torch.manual_seed(seed)
    state = {key: tensor.clone() for key, tensor in sr.load_model("demo").network.state_dict().items()}
    state = {key: t * (1 + 0.2 * torch.randn_like(t)) if t.ndim > 1 else t for key, t in state.items()}
    save_file(state, f"{name}.safetensors")
    it = {
        "model": "segradius.models:DemoNetwork",
        "weights": f"{name}.safetensors",
        "normalisation": "imagenet",
    }
    Path(f"{name}.yaml").write_text(yaml.safe_dump(it))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card("a", 1)
    card("b", 2)
    return tmp_path


def attack(*more: str, out: str, limit: int = 4, steps: int = 3) -> int:
    return main(["attack", *COMMON, f"--limit={limit}", f"--steps={steps}", *more, f"--out={out}"])


def report(out: str) -> dict:
    return json.loads((Path(out) / "results.json").read_text())


def lines(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))


def refused(capsys, *more: str, out: str = "refused") -> str:
    capsys.readouterr()
    assert attack(*more, out=out) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_attacking_from_itself_finds_what_the_white_box_attack_finds(place):
    assert attack("--model=a.yaml", out="white") == 0
    assert attack("--model=a.yaml", "--from=a.yaml", out="itself") == 0
    rows = [
        [
            {name: value for name, value in line.items() if name not in ("seconds", "forward")}
            for line in lines(Path(out) / "per_image.csv")
        ]
        for out in ("white", "itself")
    ]
    assert rows[0] == rows[1]
    ledgers = [report(out)["rows"][1]["ledger"] for out in ("white", "itself")]
    assert ledgers[1] == ledgers[0] | {"transfer": {"forward": 4, "backward": 0}}


def test_what_is_run_says_what_images_were_made_on_and_goes_on_with_nothing_else(place, capsys):
    assert attack("--model=demo", "--from=a.yaml,b.yaml", "--from-mean=probabilities", out="out", limit=2) == 0
    told = capsys.readouterr().out
    assert "adversarial images made on mean of a and b" in told
    model = report("out")["experiment"]["model"]
    assert model["surrogates"] == ["a.yaml", "b.yaml"]
    assert model["surrogate_mean"] == "probabilities"
    own = [sr.models.fingerprint(sr.load_model(f"{name}.yaml")) for name in "ab"]
    assert model["surrogate_fingerprints"] == own
    assert experiment_of(report("out")["experiment"]).model.surrogates == ("a.yaml", "b.yaml")
    # The same command goes on; another one is refused, and names what differs.
    assert attack("--model=demo", "--from=a.yaml,b.yaml", "--from-mean=probabilities", out="out", limit=3) == 0
    for other, named in (
        (["--from=a.yaml,b.yaml"], "model.surrogate_mean"),
        (["--from=demo"], "model.surrogate_mean is null"),
        (["--from=b.yaml,a.yaml", "--from-mean=probabilities"], 'model.surrogates is ["b.yaml", "a.yaml"]'),
        ([], "model.surrogate_mean is null"),
    ):
        assert named in refused(capsys, "--model=demo", *other, out="out")
    card("b", 3)
    assert "a surrogate changed" in refused(
        capsys, "--model=demo", "--from=a.yaml,b.yaml", "--from-mean=probabilities", out="out"
    )


def test_workers_and_speed_change_nothing_but_rounding(place):
    assert attack("--model=demo", "--from=a.yaml", "--batch-size=2", "--threads=1", out="plain") == 0
    assert attack("--model=demo", "--from=a.yaml", "--batch-size=2", "--workers=2", "--threads=1", out="two") == 0
    assert report("plain")["digest"] == report("two")["digest"]
    assert attack("--model=demo", "--from=a.yaml", "--batch-size=2", "--speed=exact", out="exact") == 0
    plain, exact = (report(out)["rows"][1] for out in ("plain", "exact"))
    assert exact["pixacc"]["value"] == pytest.approx(plain["pixacc"]["value"], abs=0.01)
    assert exact["ledger"]["transfer"] == plain["ledger"]["transfer"]


def test_a_target_is_asked_once_an_image_and_attack_and_once_before(place, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    assert main(["export", "--model=demo", "--size=24x32", "--out=demo.onnx"]) == 0
    target = ["--target=onnx:demo.onnx", "--from=a.yaml,b.yaml", "--attack=pgd,fgsm"]
    assert attack(*target, "--budget=9", out="served", limit=3) == 0
    asked = report("served")["runtime"]["target"]
    assert (asked["answered"], asked["budget"]) == (9, 9)
    rows = report("served")["rows"]
    assert [row["ledger"].get("transfer", {}).get("forward") for row in rows[1:3]] == [3, 3]
    assert rows[1]["ledger"]["attack"] == {"forward": 2 * 3 * 3, "backward": 2 * 3 * 3}  # networks, steps, images
    # It goes on where it was, with what it paid for; a fourth image is a clean one and two verdicts more.
    assert "9 of 9 are used" in refused(capsys, *target, "--budget=9", out="served")
    assert attack(*target, "--budget=12", out="served") == 0
    assert report("served")["runtime"]["target"]["answered"] == 12
    # What it says is what the network in this process says.
    assert attack("--model=demo", "--from=a.yaml,b.yaml", "--attack=pgd,fgsm", out="here") == 0
    shares = [[row["pixacc"]["value"] for row in report(out)["rows"]] for out in ("served", "here")]
    assert shares[0] == pytest.approx(shares[1], abs=2e-3)


def test_what_cannot_be_is_refused_in_one_line(place, capsys):
    assert "from_mean is logits; expected it beside several" in refused(
        capsys, "--model=demo", "--from=a.yaml", "--from-mean=logits"
    )
    assert "from_weights has 1 and from has 2" in refused(
        capsys, "--model=demo", "--from=a.yaml,b.yaml", "--from-weights=a.safetensors"
    )
    assert "'demo' has 8 classes and 'pspnet_light' has 5" in refused(
        capsys, "--model=demo", "--from=pspnet_light,num_classes=5"
    )
    assert "expected models with commas between them" in refused(capsys, "--model=demo", "--from=a.yaml,,b.yaml")
    assert "square looks at scores" in refused(capsys, "--model=demo", "--from=a.yaml", "--attack=square")
    assert "expected plain where adversarial images are made on the mean" in refused(
        capsys, "--model=demo", "--from=a.yaml,b.yaml", "--speed=exact"
    )


def test_weights_of_a_surrogate_may_be_given_beside_it(place):
    network = "segradius.models:DemoNetwork"
    files = "--from-weights=a.safetensors,b.safetensors"
    assert attack("--model=demo", f"--from={network},{network}", files, out="files") == 0
    model = report("files")["experiment"]["model"]
    assert model["surrogate_weights"] == ["a.safetensors", "b.safetensors"]
    assert len(set(model["surrogate_fingerprints"])) == 2
    with Store(Path("files") / "results.sqlite") as store:
        assert experiment_of(store.noted("experiment")).as_dict()["model"] == model


STUDY = {
    "models": {"a": "a.yaml", "b": "b.yaml", "demo": "demo"},
    "transfer": "each,others",
    "data": {"scenes": {"data": "scenes:24x32", "limit": 5}},
    "budgets": {"eps": "l2=1.0"},
    "attacks": {"PGD": {"attack": "pgd", "steps": 2}},
}


def test_a_study_makes_the_matrix_of_its_networks(place, capsys):
    Path("study.yaml").write_text(yaml.safe_dump(STUDY))
    assert main(["run", "study.yaml", "--out=study", "--device=cpu", "--figures=0", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert main(["run", "study.yaml", "--out=study", "--device=cpu", "--figures=0"]) == 0
    (matrix,) = matrices(["study"])
    assert matrix.targets == ("a", "b", "demo")
    assert matrix.made_on == ("a", "b", "demo", OTHERS)
    # A cell is the command's own run, with the passes that were promised.
    assert attack("--model=a.yaml", "--from=demo", out="alone", limit=5, steps=2) == 0
    row = report("alone")["rows"][1]
    assert matrix.cells["demo", "a"].left.value == row["pixacc"]["value"]
    assert f"{row['forward']:g}+{row['backward']:g}" == "4+2"
    assert "6+2" in told  # beside two looks of the report's
    for target in matrix.targets:
        mine = matrix.cells[target, target]
        assert mine.images == 5
        assert mine.left.value == report(f"study/runs/{target}-scenes-s0")["rows"][1]["pixacc"]["value"]
    assert main(["transfer", "study", "--out=matrix"]) == 0
    assert sorted(file.name for file in Path("matrix").glob("transfer.*")) == [
        f"transfer.{kind}" for kind in ("csv", "md", "png", "svg")
    ]
    every = lines(Path("matrix/transfer.csv"))
    assert len(every) == 12
    (line,) = [each for each in every if (each["made_on"], each["judged_on"]) == ("demo", "a")]
    assert float(line["pixacc"]) == pytest.approx(row["pixacc"]["value"], abs=1e-9)
    assert "| all others |" in Path("matrix/transfer.md").read_text()


def test_the_matrix_is_of_runs_that_are_one(place, capsys):
    assert attack("--model=a.yaml", out="white", limit=2) == 0
    capsys.readouterr()
    assert main(["transfer", "white"]) == 2
    assert "no run has images that were made on another network" in capsys.readouterr().err
    assert attack("--model=a.yaml", "--from=b.yaml", out="once", limit=2) == 0
    assert attack("--model=a.yaml", "--from=b.yaml", out="again", limit=2) == 0
    assert main(["transfer", "once", "again"]) == 2
    assert "there twice" in capsys.readouterr().err


def test_what_a_study_says_of_transfer_is_checked():
    def study(**more: object) -> dict:
        return STUDY | more

    measured = [each.name for each in Study.of(study(certify={"sigma": 0.1}, clean=True)).measurements]
    assert len(measured) == 3 * 4 + 3  # a certification for each network itself
    assert "a from others-scenes-s0" in measured
    for wrong, named in (
        (study(transfer="every"), "unknown value of the study: transfer 'every'"),
        (study(models={"a": "a.yaml"}), "transfer has nothing to attack from"),
        (
            study(models={"a": {"model": "a.yaml", "normalisation": "none"}, "b": "b.yaml"}),
            "models.a has normalisation",
        ),
        (study(attacks=None, clean=True), "is attacked by images of another network; expected attacks"),
    ):
        with pytest.raises(sr.errors.InputError, match=named):
            Study.of(wrong)
