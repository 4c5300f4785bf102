"""`sr.evaluate`: the numbers of the command line, from what people have in Python."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import segradius as sr
from segradius.cli import main
from segradius.models.demo import demo

SPEC = "scenes:24x32"
SHORT = {"steps": 3}


def tensors(images: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    data = sr.open_data(SPEC, limit=images)
    return torch.stack([data[i].image for i in range(images)]), torch.stack([data[i].label for i in range(images)])


@pytest.fixture(scope="module")
def found() -> sr.Results:
    data = sr.open_data(SPEC, limit=3)
    return sr.evaluate(demo(), data, ["pgd", "fgsm"], eps={"l2": [0.5, 1.5]}, options={"pgd.steps": 3}, quiet=True)


def test_it_has_the_numbers_of_the_command_line(found: sr.Results, tmp_path: Path):
    words = ["--attack=pgd,fgsm", "--eps=l2=0.5,1.5", "--options=pgd.steps=3", "--limit=3", f"--out={tmp_path / 'cli'}"]
    assert main(["attack", "--model=demo", f"--data={SPEC}", *words]) == 0
    assert found.save(tmp_path / "python") == tmp_path / "python"
    reports = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("cli", "python")]
    for report in reports:
        for row in report["rows"]:
            row.pop("seconds")
    assert reports[0]["rows"] == reports[1]["rows"]
    assert reports[0]["paired_differences"] == reports[1]["paired_differences"]
    for name in ("per_image.csv", "classes.csv", "figure.png"):
        assert (tmp_path / "cli" / name).read_bytes() == (tmp_path / "python" / name).read_bytes()
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("cli", "python")]
    assert {name for name in files[1] if not name.startswith(".")} == {n for n in files[0] if not n.startswith(".")}
    with pytest.raises(sr.InputError, match="holds results already"):
        found.save(tmp_path / "python")
    assert main(["compare", str(tmp_path / "cli"), str(tmp_path / "python")]) == 0


@pytest.mark.parametrize("kind", ["tensors", "dataset", "list"])
def test_what_people_have_gives_the_same_numbers(found: sr.Results, kind: str):
    images, labels = tensors()
    data = {"tensors": (images, labels), "dataset": TensorDataset(images, labels)}.get(kind)
    data = list(zip(images, labels.to(torch.uint8), strict=True)) if data is None else data
    other = sr.evaluate(demo(), data, ["pgd"], norm=2, eps=1.5, quiet=True, **SHORT)
    mine = [row for row in found.per_image() if row["attack"] == "pgd" and row["eps"] == 1.5]
    theirs = [row for row in other.per_image() if row["attack"] == "pgd"]
    for name in ("right", "pixels", "hit", "forward", "backward"):
        assert [row[name] for row in mine] == [row[name] for row in theirs]


def test_no_attack_at_all_judges_the_images_as_they_are(found: sr.Results, tmp_path: Path):
    plain = sr.evaluate(demo(), tensors(), (), quiet=True, names=["a", *"bcdefgh"])
    assert plain.summary.rows[0].classes[0].name == "a"
    assert [row.pixacc for row in plain.summary.rows] == [found.summary.rows[0].pixacc]
    plain.save(tmp_path)
    assert (tmp_path / "classes.csv").exists()


def test_it_prints_its_tables_and_gives_a_data_frame(found: sr.Results):
    pandas = pytest.importorskip("pandas")
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 3 * 5
    by_attack = frame.groupby(["attack", "eps"], dropna=False)[["right", "pixels"]].sum()
    for row in found.summary.rows[1:-2]:
        right, pixels = by_attack.loc[(row.name, row.eps)]
        assert right / pixels == pytest.approx(row.pixacc.value)
    assert "| pgd | l2 | 1.5 | 3 |" in str(found)
    assert "IoU of each class" in str(found)


def test_what_cannot_be_used_is_told_with_what_is_expected():
    images, labels = tensors()
    loader = DataLoader(TensorDataset(images, labels))
    for model, data, told in (
        (torch.nn.Conv2d(3, 8, 1), (images, labels), "model is a Conv2d; expected segradius.wrap"),
        (demo(), loader, "data is a DataLoader; expected its dataset"),
        (demo(), 3, "data is a int; expected a data set"),
        (demo(), [images[0]], "00000': it is a Tensor; expected a pair of tensors"),
        (demo(), (images, labels[:2]), "3 images and 2 masks"),
        (demo(), [(images[0], labels[0, :4])], "the label is 4×32 and the image 24×32"),
    ):
        with pytest.raises(sr.InputError) as error:
            sr.evaluate(model, data, "fgsm", quiet=True)
        assert told in str(error.value)


def test_images_that_are_not_in_range_are_set_aside_by_name():
    images, labels = tensors()
    images[1] *= 255
    other = sr.evaluate(demo(), (images, labels), "fgsm", quiet=True)
    assert list(other.summary.set_aside) == ["00001"]
    assert [row.images for row in other.summary.rows] == [2, 2]


def test_per_image_rows_are_those_of_the_file(found: sr.Results, tmp_path: Path):
    found.save(tmp_path)
    with (tmp_path / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for row, line in zip(found.per_image(), lines, strict=True):
        assert row.keys() == line.keys()
        for name, value in row.items():
            assert value == (line[name] if isinstance(value, str) else float(line[name]) if line[name] else None)


def test_images_none_of_which_can_be_used_are_an_error_and_some_are_told(capsys: pytest.CaptureFixture[str]):
    images, labels = tensors()
    with pytest.raises(sr.InputError, match="none of the images could be used; the first, 00000: pixel values run"):
        sr.evaluate(demo(), (images * 255, labels), "fgsm", quiet=True)
    images[2] = -1
    sr.evaluate(demo(), (images, labels), "fgsm")
    assert "1 image(s) set aside and in no figure: 00002" in capsys.readouterr().err


def test_an_option_that_no_attack_takes_is_refused_as_everywhere():
    with pytest.raises(sr.InputError, match="step_size"):
        sr.evaluate(demo(), tensors(), "pgd", step_size=0.1, quiet=True)


class Spoilt(TensorDataset):
    """A data set of somebody's own, one file of which cannot be read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        if index == 1:
            raise OSError("image b.png is truncated")
        return super().__getitem__(index)


def test_one_item_that_cannot_be_had_is_set_aside_and_the_others_are_as_without_it(found: sr.Results):
    spoilt = sr.evaluate(demo(), Spoilt(*tensors()), "pgd", eps=1.5, quiet=True, **SHORT)
    assert list(spoilt.summary.set_aside) == ["00001"]
    assert "OSError: image b.png is truncated" in spoilt.summary.set_aside["00001"]
    right = {row["image"]: row["right"] for row in spoilt.per_image() if row["attack"] == "pgd"}
    every = [row["right"] for row in found.per_image() if row["attack"] == "pgd" and row["eps"] == 1.5]
    assert right == {"00000": every[0], "00002": every[2]}


def test_a_target_is_described_as_on_the_command_line(tmp_path: Path):
    words = ["--attack=local_search", "--eps=linf=0.05", "--queries=8", "--limit=2", f"--out={tmp_path}"]
    assert main(["attack", "--target=demo", f"--data={SPEC}", *words]) == 0
    target = sr.targets.open_target("demo")
    asked = sr.evaluate(target, sr.open_data(SPEC, limit=2), "local_search", eps={"linf": 0.05}, queries=8, quiet=True)
    model = json.loads((tmp_path / "results.json").read_text())["experiment"]["model"]
    mine = asked.run.experiment.model
    assert (mine.fingerprint, mine.scores_only) == (model["fingerprint"], model["scores_only"])


def test_the_command_is_no_part_of_what_python_runs_after_it(found: sr.Results, tmp_path: Path):
    assert main(["list", "data"]) == 0
    found.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["runtime"]["command"] == ""


def test_names_of_classes_may_be_fewer_than_the_model_has():
    two = sr.evaluate(demo(), tensors(), (), quiet=True, names=["a", "b", *"cdef"])
    assert [each.name for each in two.summary.rows[0].classes][:2] == ["a", "b"]


def test_the_help_names_the_attacks_that_python_begins_with():
    from segradius.cli.attack import AttackOptions
    from segradius.report.results import DEFAULT

    assert ",".join(DEFAULT) in (AttackOptions.__doc__ or "")


@pytest.mark.parametrize("more", [{"names": ["a", "b"]}, {"structures": ["organ"]}])
def test_classes_of_data_that_name_them_are_not_named_again(more: dict[str, list[str]]) -> None:
    for data in ("scenes:24x32,1", sr.open_data("scenes:24x32", limit=1)):
        with pytest.raises(sr.InputError, match="says itself what its masks mean"):
            sr.evaluate(sr.load_model("demo"), data, (), quiet=True, **more)


def test_labels_are_given_or_predicted_and_nothing_else() -> None:
    with pytest.raises(sr.InputError, match="labels is 'predictd'; expected given or predicted"):
        sr.evaluate(sr.load_model("demo"), "scenes:24x32,1", (), labels="predictd", quiet=True)


def test_the_model_with_its_cheaper_forms_is_the_one_that_is_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from segradius.report import results

    seen: list[bool] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.requires_grad)
        return torch.cat([1 - 2 * x[:, :1], 2 * x[:, :1] - 1], 1)

    monkeypatch.setattr(results, "quickened", lambda run, *_, **__: replace(run, model=sr.wrap(network, num_classes=2)))
    pair = torch.rand(3, 4, 4), torch.zeros(4, 4).long()
    sr.evaluate(sr.wrap(torch.nn.Conv2d(3, 2, 1)), [pair], "pgd", eps=1.0, steps=2, speed="exact", quiet=True)
    assert seen.count(True) >= 2


def test_a_batch_size_found_by_trial_is_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = sr.evaluate(demo(), tensors(), "pgd", eps=1.0, steps=1, batch_size="auto")
    told = json.loads((found.save(tmp_path / "out") / "results.json").read_text())["runtime"]
    assert told["batch_size_trial"].startswith(f"batch size {told['batch_size']}: ")
    assert f"segradius: {told['batch_size_trial']}" in capsys.readouterr().err
