"""`segradius attack --target`: the same perturbation from network, file and server; exact counts; what is refused."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from served import LOCAL, adversarial, attack, loaded, place, queries, report, server, stub, text

import segradius as sr
from segradius.cli import main
from segradius.evaluation import FileJournal
from targets.oip_stub import Stub, serving

__all__ = ["place"]

CLOSE = {"rtol": 0, "atol": 1e-5}


def lines(folder: str, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text(folder, name).splitlines()))


def exported(folder: Path) -> Path:
    sr.models.export_onnx(sr.wrap(loaded(folder), num_classes=3), folder / "net.onnx", 8, 10)
    return folder / "net.onnx"


def test_a_network_a_file_and_a_server_give_the_same_perturbation_and_the_same_counts(place):
    exported(place)
    assert attack("local", *LOCAL) == 0
    assert attack("file", "--target", "onnx:net.onnx") == 0
    with serving(stub(place)) as served:
        assert attack("served", *server(served.url)) == 0
    for other in ("file", "served"):
        torch.testing.assert_close(adversarial(other), adversarial("local"), **CLOSE)
        assert [line["forward"] for line in lines(other, "per_image.csv")] == [
            line["forward"] for line in lines("local", "per_image.csv")
        ]
    assert queries("served") == sum(served.images) == report("served")["runtime"]["target"]["answered"]


def test_a_network_attacked_as_a_model_gives_the_perturbation_of_the_target(place):
    assert attack("model", "--model", *LOCAL[1:], "--figures", "3") == 0
    assert attack("target", *LOCAL) == 0
    assert torch.equal(adversarial("model"), adversarial("target"))
    assert report("model")["identity"] != report("target")["identity"]


def test_five_per_cent_of_failures_change_nothing(place):
    """Time-outs, 503s and broken connections: the same bytes come out, each request is answered once."""
    draw = random.Random(1)
    plan = [
        "stall",
        "503",
        *(draw.choice(["503", "drop", "half"]) if draw.random() < 0.05 else None for _ in range(300)),
    ]
    draw.shuffle(plan)
    with serving(stub(place)) as fine:
        assert attack("fine", *server(fine.url)) == 0
    with serving(stub(place, fault=plan.__getitem__)) as rough:
        assert attack("rough", *server(rough.url, "batch=2,read=1")) == 0
    assert sum(rough.failed[fault] for fault in ("stall", "503", "drop", "half")) > 4
    assert set(rough.answered.values()) == {1}
    assert rough.answered == fine.answered
    assert text("rough", "per_image.csv") == text("fine", "per_image.csv")
    assert text("rough", "trace.csv") == text("fine", "trace.csv")
    assert torch.equal(adversarial("rough"), adversarial("fine"))
    told = report("rough")["runtime"]["target"]
    assert told["answered"] == queries("rough") == sum(rough.images)
    assert told["traffic"]["sent"] == rough.received.total()


@pytest.mark.parametrize("at", [0, 1, 3, 12, 31])
@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_a_server_that_gives_up_in_the_middle_is_asked_the_rest_by_the_same_command(place, at, seconds, capsys):
    words = ["--checkpoint-seconds", seconds]
    with serving(stub(place)) as fine:
        assert attack("whole", *server(fine.url), *words) == 0
    with serving(stub(place, fault=lambda n: "500" if n == at else None)) as served:
        parts = server(served.url, "batch=2,wire=binary")
        assert attack("parts", *parts, *words) == 2
        assert "run the same command again to go on" in capsys.readouterr().err
        assert attack("parts", *parts, *words) == 0
    assert served.answered == fine.answered
    assert set(served.answered.values()) == {1}
    for name in ("per_image.csv", "trace.csv"):
        assert text("parts", name) == text("whole", name)
    assert torch.equal(adversarial("parts"), adversarial("whole"))
    assert report("parts")["rows"] == report("whole")["rows"]
    assert report("parts")["runtime"]["target"]["answered"] == queries("parts") == sum(served.images)
    assert not Path("parts/checkpoints").exists()


def test_a_finished_run_asks_nothing_again_not_even_for_more_pictures(place):
    with serving(stub(place)) as served:
        assert attack("out", *server(served.url), "--figures", "1") == 0
        asked = served.received.total()
        assert attack("out", *server(served.url), "--figures", "3") == 0
        assert served.received.total() == asked
    with Image.open("out/figure.png") as picture:
        assert picture.height > picture.width


def test_another_attack_on_the_same_target_does_not_ask_about_the_clean_images_again(place):
    with serving(stub(place)) as served:
        assert attack("out", *server(served.url), "--attack", "local_pbgd", "--options", "directions=tiles:4") == 0
        first = sum(served.images)
        more = ["--attack", "local_pbgd,pbgd", "--options", "local_pbgd.directions=tiles:4"]
        assert attack("out", *server(served.url), *more) == 0
        assert sum(served.images) - first == 3 * 23  # 11 rounds of two queries, and a verdict


def test_the_way_a_server_is_asked_is_no_part_of_the_experiment_and_its_answers_are(place, capsys):
    with serving(stub(place)) as served:
        assert attack("out", *server(served.url)) == 0
        assert attack("out", *server(served.url, "batch=3,rate=1000,retries=2")) == 0
        assert attack("out", *server(served.url), "--answers", "digits=3") == 2
    assert "out holds another experiment: model.answers" in capsys.readouterr().err


def test_a_batch_that_was_begun_is_finished_at_its_own_size(place, capsys):
    with serving(stub(place)) as fine:
        assert attack("whole", *server(fine.url)) == 0
    with serving(stub(place, fault=lambda n: "500" if n == 9 else None)) as served:
        words = [*server(served.url, "batch=2,wire=binary"), "--checkpoint-seconds", "0"]
        assert attack("parts", *words) == 2
        assert attack("parts", *words, "--batch-size", "3") == 0
    assert "going on with --batch-size 2" in capsys.readouterr().err
    assert served.answered == fine.answered


def test_a_budget_ends_a_run_before_it_is_exceeded_and_a_larger_one_goes_on(place, capsys):
    with serving(stub(place)) as fine:
        assert attack("whole", *server(fine.url)) == 0
    with serving(stub(place)) as served:
        assert attack("parts", *server(served.url), "--budget", "30") == 2
        assert sum(served.images) <= 30
        assert "with a larger --budget" in capsys.readouterr().err
        assert attack("parts", *server(served.url), "--budget", str(sum(fine.images))) == 0
    assert served.answered == fine.answered
    assert text("parts", "per_image.csv") == text("whole", "per_image.csv")


def test_a_damaged_checkpoint_is_set_aside_and_its_batch_begins_anew(place, capsys):
    assert attack("whole", *LOCAL) == 0
    with serving(stub(place, fault=lambda n: "500" if n == 9 else None)) as served:
        words = [*server(served.url, "batch=2,wire=binary"), "--checkpoint-seconds", "0"]
        assert attack("parts", *words) == 2
        (file,) = Path("parts/checkpoints").glob("*.pt")
        file.write_bytes(file.read_bytes()[:99])
        assert attack("parts", *words) == 0
    assert f"{file} cannot be read" in capsys.readouterr().err
    assert file.with_suffix(".damaged").exists()
    torch.testing.assert_close(adversarial("parts"), adversarial("whole"), **CLOSE)


def test_a_kill_between_storing_a_result_and_removing_its_checkpoint_counts_nothing_twice(place, monkeypatch):
    assert attack("whole", *LOCAL) == 0

    def killed(journal):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FileJournal, "remove", killed)
        assert attack("parts", *LOCAL, "--checkpoint-seconds", "0") == 130
    assert any(Path("parts/checkpoints").glob("*.pt"))
    assert attack("parts", *LOCAL, "--checkpoint-seconds", "0") == 0
    assert report("parts")["runtime"]["target"]["answered"] == queries("parts") == queries("whole")
    assert not Path("parts/checkpoints").exists()


def test_a_target_is_attacked_by_black_box_attacks_where_none_is_named(place):
    assert main(["attack", *LOCAL, "--data", "folder:data", "--queries", "9", "--device", "cpu", "--out", "out"]) == 0
    assert [plan["name"] for plan in report("out")["experiment"]["attacks"]] == ["local_pbgd", "local_search"]


def test_an_unfinished_batch_is_not_lost_to_a_mistyped_command(place, capsys):
    with serving(stub(place, fault=lambda n: "500" if n == 9 else None)) as served:
        words = [*server(served.url, "batch=2,wire=binary"), "--checkpoint-seconds", "0"]
        assert attack("parts", *words) == 2
        assert attack("parts", *words, "--seed", "7") == 2
        assert "holds another experiment: seed is 7" in capsys.readouterr().err
        assert any(Path("parts/checkpoints").glob("*.pt"))
        assert attack("parts", *words, "--seed", "7", "--overwrite") == 0


def test_traces_have_a_line_for_each_verdict_and_end_with_the_result(place):
    assert attack("out", *LOCAL, "--marks", "8,16") == 0
    results = {(row["attack"], row["image"]): row for row in lines("out", "per_image.csv")}
    rows = lines("out", "trace.csv")
    assert list(rows[0]) == ["attack", "norm", "eps", "image", "queries", "judged", "loss", "pixacc", "best"]
    for (name, image), result in results.items():
        mine = [row for row in rows if (row["attack"], row["image"]) == (name, image)]
        if name == "clean":
            assert mine == []
            continue
        judged = [int(row["queries"]) for row in mine if row["judged"] == "1"]
        assert [sum(q <= mark for q in judged) for mark in (8, 16)] == [1, 2]
        assert int(mine[-1]["queries"]) == int(result["forward"])
        assert float(mine[-1]["best"]) == pytest.approx(float(result["pixacc"]), abs=1e-6)
    with Image.open("out/curve.png") as picture:
        assert picture.format == "PNG"


def test_the_report_of_a_target_leaves_out_what_was_not_asked(place):
    assert attack("out", *LOCAL) == 0
    clean, first, *_ = report("out")["rows"]
    assert clean["ledger"] == {"judging": {"forward": 3, "backward": 0}}
    assert first["sanity"]["disagreement"] is None
    assert first["sanity"]["length_over_eps"] == pytest.approx(0.16, abs=1e-5)  # eight steps of 2 %
    assert {row["disagreement"] for row in lines("out", "per_image.csv")[3:]} == {""}
    assert report("out")["experiment"]["model"]["scores_only"] is True


def test_the_default_budget_is_the_papers_for_black_box_attacks(place):
    words = ["attack", *LOCAL, "--data", "folder:data", "--device", "cpu", "--queries", "9", "--limit", "1"]
    assert main([*words, "--attack", "pbgd", "--norm", "l2", "--out", "black"]) == 0
    assert report("black")["experiment"]["attacks"][0]["eps"] == 10.0


@pytest.mark.parametrize("answers", ["digits=2", "top=2", "labels"])
def test_harsher_answers_are_another_experiment_with_the_same_number_of_queries(place, answers):
    words = ["--attack", "local_search", "--options", "loss=wrong,tile=4"]
    assert attack("fine", *LOCAL, *words) == 0
    assert attack("harsh", *LOCAL, *words, "--answers", answers) == 0
    assert queries("fine") == queries("harsh")
    keys = [report(folder)["experiment"]["model"]["fingerprint"] for folder in ("fine", "harsh")]
    assert keys[0] != keys[1]


BAD = {
    "pgd needs the gradients of the model, and small_net:network gives scores only": [*LOCAL, "--attack", "pbgd,pgd"],
    "both were given": [*LOCAL, "--model", "demo"],
    "neither was given": [],
    "to aim at a class, use --aim Y": ["--target", "Y"],
    "to aim at a class, use --aim 2": ["--model", "demo", "--target", "2"],
    "to aim at a class, use --aim random": ["--model", "demo", "--target", "random"],
    "use --aim mask.png": ["--model", "demo", "--target", "mask.png"],
    "answers is for --target": ["--model", *LOCAL[1:], "--answers", "labels"],
    "budget is for --target": ["--model", *LOCAL[1:], "--budget", "5"],
    "local_pbgd looks at scores, and the target returns labels only": [*LOCAL, "--answers", "labels"],
    "unknown answer 'digit'; did you mean 'digits'?": [*LOCAL, "--answers", "digit=3"],
    "expected whole numbers of queries": [*LOCAL, "--marks", "20,x"],
    "checkpoint_seconds is -1": [*LOCAL, "--checkpoint-seconds=-1"],
    "queries is 1; one round and a verdict take": [*LOCAL, "--queries", "1"],
    "unknown model 'road'": ["--target", "road"],
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_meant_is_one_line_and_nothing_is_asked(place, message, capsys):
    words = ["--attack", "local_pbgd", "--options", "directions=tiles:4", *BAD[message]]
    assert attack("out", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path("out/results.json").exists()


def test_the_camvid_network_and_its_file_and_server_give_the_same_perturbation(
    camvid_folder, camvid_model, camvid_weights, tmp_path, monkeypatch
):
    """At 120 × 160, 200 queries each.

    The file's scores differ from the network's by 3e-6. Attacks whose moves are continuous in the scores, or compare
    sums of many, keep that; local_pbgd steps by signs in l∞, which amplify it where a gain is zero up to rounding.
    """
    monkeypatch.chdir(tmp_path)
    sr.models.export_onnx(camvid_model, tmp_path / "net.onnx", 120, 160)

    def scores(images: np.ndarray) -> np.ndarray:
        torch.set_num_threads(1)
        return camvid_model.scores(torch.from_numpy(images.copy())).numpy()

    spec = "smp:PSPNet,encoder_name=resnet18,encoder_weights=null,encoder_depth=3,classes=11"
    words = ["attack", "--data", f"camvid:{camvid_folder}", "--size", "120x160", "--limit", "1", "--device", "cpu"]
    words += ["--attack", "cr_pbgd,local_search,local_pbgd", "--eps", "linf=0.05", "--queries", "200", "--figures", "0"]
    with serving(Stub(model=scores, output_shape=(-1, 11, -1, -1))) as served:
        assert main([*words, "--target", spec, "--weights", str(camvid_weights), "--out", "local"]) == 0
        assert main([*words, "--target", "onnx:net.onnx,threads=1", "--out", "file"]) == 0
        assert main([*words, "--target", f"oip:{served.url}", "--out", "served"]) == 0
    local, file, server_ = (adversarial(folder) for folder in ("local", "file", "served"))
    torch.testing.assert_close(server_, local, **CLOSE)
    torch.testing.assert_close(file[:2], local[:2], **CLOSE)
    mine, theirs = (lines(folder, "per_image.csv") for folder in ("file", "local"))
    assert [line["forward"] for line in mine] == [line["forward"] for line in theirs]
    assert float(mine[-1]["pixacc"]) == pytest.approx(float(theirs[-1]["pixacc"]), abs=0.05)
    assert json.loads(text("served", "results.json"))["runtime"]["target"]["answered"] == sum(served.images)
