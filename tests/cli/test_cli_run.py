"""`segradius run` and `segradius merge` end to end: what is asked is measured once, wherever and however often."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import segradius.models.segmenter as segmenter
from segradius.cli import main
from segradius.evaluation import CLEAN, Store, run_folders

STUDY = {
    "models": {"demo": "demo"},
    "data": {"scenes": {"data": "scenes:24x32", "limit": 4}},
    "budgets": {"eps": "l2=1.0"},
    "attacks": {"pgd": {"steps": 30}},
    "certify": {"sigma": 0.1, "n0": 10, "n": 60, "limit": 3, "attack": "pgd", "steps": 1,
                "check_copies": 9, "weakest": 1},
}  # fmt: skip
ATTACKS = {name: value for name, value in STUDY.items() if name != "certify"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def passes(monkeypatch):
    """Forward passes over single images so far, of any network."""
    counted = [0]
    logits = segmenter.Segmenter.logits

    def counting(self, images, *args, **more):
        counted[0] += len(images)
        return logits(self, images, *args, **more)

    monkeypatch.setattr(segmenter.Segmenter, "logits", counting)
    return counted


def write(study: dict, name: str = "study.yaml") -> str:
    Path(name).write_text(yaml.safe_dump(study, sort_keys=False))
    return name


def run(study: dict, *more: str, out: str = "out") -> int:
    return main(["run", write(study), "--out", out, "--device", "cpu", "--figures", "0", *more])


def digests(out: str = "out") -> dict[str, str]:
    return {each.name: json.loads((each.path / "results.json").read_text())["digest"] for each in run_folders([out])}


def spent(passes: list[int], study: dict, *more: str, out: str = "out") -> int:
    before = passes[0]
    assert run(study, *more, out=out) == 0
    return passes[0] - before


def test_a_study_is_the_commands_in_folders_of_its_own(place):
    assert run(STUDY, "--batch-size", "2") == 0
    assert [(each.name, each.kind) for each in run_folders(["out"])] == [
        ("demo-scenes-s0", "attack"),
        ("demo-scenes-s0-certify-sigma0.1", "certify"),
    ]
    common = ["--model=demo", "--data=scenes:24x32", "--device=cpu", "--figures=0", "--batch-size=2"]
    attack = ["--attack=pgd", "--eps=l2=1.0", "--steps=30", "--limit=4"]
    certify = ["--sigma=0.1", "--n0=10", "--n=60", "--limit=3", "--attack=pgd", "--steps=1", "--check-copies=9"]
    for kind, options, name in (
        ("attack", attack, "demo-scenes-s0"),
        ("certify", [*certify, "--weakest=1"], "demo-scenes-s0-certify-sigma0.1"),
    ):
        assert main([kind, *common, *options, f"--out={kind}"]) == 0
        mine, theirs = (json.loads(Path(each, "results.json").read_text()) for each in (f"out/runs/{name}", kind))
        assert mine["experiment"] == theirs["experiment"]
        assert mine["digest"] == theirs["digest"]


def test_what_is_there_is_not_run_again_and_what_is_added_is_all_that_is(place, passes):
    whole = spent(passes, ATTACKS)
    assert whole > 4 * 30
    assert spent(passes, ATTACKS) == 0
    attack = ATTACKS | {"attacks": {**ATTACKS["attacks"], "fgsm": None}}
    assert 4 < spent(passes, attack) < 60  # one step, judged; and what the report looks at
    budget = attack | {"budgets": {"eps": "l2=1.0,2.0"}}
    assert 4 * (30 + 1) < spent(passes, budget) < whole + 20  # both attacks at the new budget
    seed = budget | {"seeds": [0, 1]}
    both = spent(passes, seed)
    assert spent(passes, budget | {"seeds": [1]}, out="apart") == pytest.approx(both, abs=1)
    image = seed | {"data": {"scenes": {"data": "scenes:24x32", "limit": 5}}}
    assert both / 4 < spent(passes, image) < both  # an image under two seeds
    assert len(run_folders(["out"])) == 2


def test_each_goes_on_where_it_was_stopped(place, monkeypatch, capsys):
    assert run(STUDY, out="whole") == 0
    add, left = Store.add, [3]

    def stopping(self, *given, **more):
        add(self, *given, **more)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", stopping)
    for _ in range(3):
        left[0] = 3
        assert run(STUDY, "--batch-size", "1") == 130
        assert "What was finished is kept in out; run the same command again" in capsys.readouterr().err
    left[0] = 10**6
    assert run(STUDY, "--batch-size", "1") == 0
    assert {name: each["counts"] for name, each in digests().items()} == {
        name: each["counts"] for name, each in digests("whole").items()
    }


def test_a_dry_run_tells_passes_and_runs_and_writes_nothing(place, capsys, passes):
    assert run(STUDY, "--dry-run") == 0
    told = capsys.readouterr().out
    assert not Path("out").exists()
    assert "pgd l2 ε=1" in told
    assert "33+30" in told  # 30 of them differentiated; one judges, one again, one after rounding
    assert "132+120" in told
    assert "2 measurements, at most" in told
    assert run(ATTACKS) == 0
    before = {file: file.read_bytes() for file in Path("out").rglob("*") if file.is_file()}
    assert run(ATTACKS | {"seeds": [0, 1]}, "--dry-run") == 0
    lines = [line.split("│")[1:5] for line in capsys.readouterr().out.splitlines() if "pgd l2" in line]
    assert [(name.strip(), left.strip()) for name, _, left, _ in lines] == [
        ("demo-scenes-s0", "0"),
        ("demo-scenes-s1", "4"),
    ]
    assert {file: file.read_bytes() for file in Path("out").rglob("*") if file.is_file()} == before


def test_only_some_and_clean_alone(place):
    assert run(STUDY | {"seeds": [0, 1]}, "--only", "demo-scenes-s1") == 0
    assert [each.name for each in Path("out/runs").iterdir()] == ["demo-scenes-s1"]
    assert [each.is_reported for each in run_folders(["out"])] == [False, False, True, False]
    clean = {"models": STUDY["models"], "data": STUDY["data"], "clean": True}
    assert run(clean, out="clean") == 0
    assert [each.kind for each in run_folders(["clean"])] == ["evaluate"]
    assert run(ATTACKS, out="clean") == 0  # goes on in the same folder
    assert [each.kind for each in run_folders(["clean"])] == ["attack"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"models": {"demo": {"model": "demo", "wieghts": "a"}}},
            "study.yaml: models.demo: unknown option 'wieghts'",
        ),
        ({"models": {"demo": {"weights": "a"}}}, "study.yaml: models.demo: give --model"),
        ({"models": {"demo": "dmo"}}, "study.yaml: models.demo: unknown model 'dmo'; did you mean 'demo'"),
        ({"data": {"scenes": {"data": "scenes", "limit": 0}}}, "study.yaml: data.scenes: limit is 0; expected a whole"),
        ({"data": {"scenes": {"limit": 3}}}, "study.yaml: data.scenes: data is missing"),
        ({"attacks": {"pgd": {"step": 3}}}, "study.yaml: attacks: unknown option of pgd 'step'; did you mean"),
        ({"attacks": {"pdg": None}}, "study.yaml: attacks: unknown attack 'pdg'; did you mean 'pdpgd' or 'pgd'"),
        ({"options": {"stepz": 3}}, "study.yaml: options: unknown option of attacks 'stepz'; did you mean 'steps'"),
        ({"budgets": {"eps": -1}}, "study.yaml: budgets: eps '-1' is not above zero"),
        ({"certify": {"sigmas": 0.1}}, "study.yaml: certify: unknown option of certify 'sigmas'; did you mean 'sigma'"),
        ({"certify": {"n": 10, "tau": 2}}, "study.yaml: certify: tau is 2; expected a number in [0.5, 1)"),
        ({"certify": {"steps": 10}}, "study.yaml: certify: steps is for --attack, which was not given"),
    ],
)
def test_errors_name_the_key(place, change, told, capsys):
    assert run(ATTACKS | change) == 2
    assert told in capsys.readouterr().err
    assert not Path("out", "runs").exists()


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/", "-1/2"])
def test_a_part_that_is_none_is_refused(place, shard, capsys):
    assert run(ATTACKS, f"--shard={shard}") == 2
    assert f"shard is '{shard}'; expected i/n with 1 ≤ i ≤ n, as 3/16" in capsys.readouterr().err


def test_another_experiment_in_a_folder_is_refused_before_anything_is_run(place, capsys, passes):
    assert run(ATTACKS | {"seeds": [0, 1]}, "--only", "demo-scenes-s1") == 0
    other = ATTACKS | {"seeds": [0, 1], "attacks": {"pgd": {"steps": 29}}}
    before = passes[0]
    assert run(other) == 2
    assert "out/runs/demo-scenes-s1 holds another experiment: of pgd (l2, ε = 1)" in capsys.readouterr().err
    assert passes[0] == before
    assert not Path("out/runs/demo-scenes-s0").exists()


def test_a_model_that_does_not_fit_is_refused_by_name_before_another_is_run(place, capsys):
    small = {"demo": "demo", "two": {"model": "smp:Unet,encoder_name=resnet18,encoder_weights=null,classes=2"}}
    for more in ((), ("--dry-run",)):
        assert run(ATTACKS | {"models": small}, *more) == 2
        assert "study.yaml: two-scenes-s0: " in capsys.readouterr().err
    assert not Path("out", "runs").exists()


def test_a_measurement_that_cannot_go_on_keeps_no_other_from_being_finished(place, monkeypatch, capsys):
    Path("no_such_size_net.py").write_text(
        "import torch\n\nclass Net(torch.nn.Conv2d):\n    def forward(self, x):\n        if x.shape[2] == 24:\n"
        "            raise RuntimeError('no such size')\n        return super().forward(x)\n\n\n"
        "def network():\n    torch.manual_seed(0)\n    return Net(3, 8, 1)\n"
    )
    monkeypatch.syspath_prepend(str(place))
    models = {"broken": {"model": "no_such_size_net:network", "num_classes": 8}, "demo": "demo"}
    study = ATTACKS | {"models": models, "data": {"scenes": {"data": "scenes:24x32", "limit": 9}}}
    assert run(study) == 2
    told = capsys.readouterr().err
    assert "1 of 2 measurements cannot be finished: broken-scenes-s0: " in told
    assert "no such size" in told
    assert [(each.name, each.is_reported) for each in run_folders(["out"])] == [
        ("broken-scenes-s0", False),
        ("demo-scenes-s0", True),
    ]


def test_no_secret_is_in_the_folder(place):
    secret = ATTACKS | {"models": {"demo": {"model": "demo", "weights": "https://me:word@host/a?token=abc"}}}
    run(secret)
    texts = "".join(file.read_text() for file in Path("out").rglob("study.*"))
    assert "***" in texts
    assert "word" not in texts
    assert "abc" not in texts


# Parts


def parts(study: dict, of: int, *more: str, out: str = "out", which: tuple[int, ...] = ()) -> list[str]:
    for part in which or range(1, of + 1):
        assert run(study, "--shard", f"{part}/{of}", "--batch-size", "1", *more, out=out) == 0
    return sorted(map(str, Path(out).glob("shard-*")))


def merge(folders: list[str], out: str = "out") -> int:
    return main(["merge", *folders, "--out", out, "--device", "cpu", "--figures", "0"])


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """A study in one process, and the same in three parts that are merged; and the parts before."""
    folder = tmp_path_factory.mktemp("merged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(STUDY, "--batch-size", "1", out="whole") == 0
        folders = parts(STUDY, 3)
        shutil.copytree("out", "parts")
        assert merge(folders) == 0
    return folder


def test_parts_that_are_merged_have_the_digest_of_one_process(merged, monkeypatch):
    monkeypatch.chdir(merged)
    assert digests("out") == digests("whole")
    for name in ("certificates", "maps"):
        mine, theirs = (
            {file.name: file.read_bytes() for file in Path(each, "runs").glob(f"*/{name}/*")}
            for each in ("out", "whole")
        )
        assert mine == theirs
        assert len(mine) == 3


def test_each_image_is_in_one_part_whatever_was_done(merged, monkeypatch):
    monkeypatch.chdir(merged)
    done = []
    for part in (1, 2, 3):
        with Store(f"parts/shard-{part}-of-3/runs/demo-scenes-s0/results.sqlite") as store:
            done.append(sorted(store.done(CLEAN)))
    ids = sorted(image for images in done for image in images)
    assert len(ids) == len(set(ids)) == 4
    assert list(map(len, done)) == [2, 1, 1]


def test_merging_again_and_after_a_kill_in_the_middle_gives_the_same(merged, tmp_path, monkeypatch):
    shutil.copytree(merged / "parts", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    folders = sorted(map(str, Path("out").glob("shard-*")))
    move = Path.replace

    def killed(self, target):
        if str(target).endswith("results.sqlite"):
            raise KeyboardInterrupt
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        assert merge(folders) == 130
    assert not list(Path("out/runs").rglob("results.sqlite"))
    for _ in range(2):
        assert merge(folders) == 0
        assert digests("out") == digests_of(merged / "whole")


def digests_of(folder: Path) -> dict:
    return {each.name: json.loads((each.path / "results.json").read_text())["digest"] for each in run_folders([folder])}


def test_parts_are_finished_where_they_are_also_if_the_whole_is_elsewhere(merged, tmp_path, monkeypatch, capsys):
    shutil.copytree(merged / "parts", tmp_path / "parts")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("parts/shard-2-of-3")
    shutil.rmtree("parts/shard-3-of-3/runs/demo-scenes-s0-certify-sigma0.1")
    assert main(["merge", "parts/shard-1-of-3", "parts/shard-3-of-3", "--out", "whole", "--device", "cpu"]) == 3
    told = " ".join(capsys.readouterr().err.split())
    for part in (2, 3):
        assert f"parts/shard-1-of-3/study.yaml --out parts --shard {part}/3 --batch-size 1" in told


def test_a_part_that_is_missing_and_one_that_is_not_finished_are_told_with_what_makes_them(
    merged, tmp_path, monkeypatch, capsys
):
    shutil.copytree(merged / "parts", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    write(STUDY)
    shutil.rmtree("out/shard-2-of-3")
    shutil.rmtree("out/shard-3-of-3/runs/demo-scenes-s0-certify-sigma0.1")
    folders = sorted(map(str, Path("out").glob("shard-*")))
    assert merge(folders) == 3
    told = " ".join(capsys.readouterr().err.split())
    command = "segradius run out/shard-1-of-3/study.yaml --out out --shard 2/3 --batch-size 1"
    assert f"part 2 of 3 is missing: 2 images in 2 measurements; {command}" in told
    assert "part 3 of 3 is not finished: 1 images in 1 measurements; segradius run" in told
    for part in (2, 3):
        again = ["run", "out/shard-1-of-3/study.yaml", "--out", "out", "--shard", f"{part}/3", "--batch-size", "1"]
        assert main([*again, "--device", "cpu"]) == 0
    assert merge(sorted(map(str, Path("out").glob("shard-*")))) == 0
    assert digests() == digests_of(merged / "whole")


def test_parts_of_different_studies_and_cuts_are_refused_by_name(merged, tmp_path, monkeypatch, capsys):
    shutil.copytree(merged / "parts", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    assert run(ATTACKS, "--shard", "1/2", "--batch-size", "1", out="b") == 0
    assert merge(["out/shard-1-of-3", "b/shard-1-of-2"], "m") == 2
    assert "b/shard-1-of-2 is of another study than out/shard-1-of-3: certify differs" in capsys.readouterr().err
    assert run(STUDY, "--shard", "1/2", "--batch-size", "1", out="c") == 0
    assert merge(["out/shard-1-of-3", "c/shard-1-of-2"], "m") == 2
    assert (
        "c/shard-1-of-2 is one of 2, cut by batches of 1, and out/shard-1-of-3 is one of 3" in capsys.readouterr().err
    )
    assert merge(["out/shard-1-of-3", "out/shard-1-of-3"], "m") == 2
    assert "are both part 1; expected each once" in capsys.readouterr().err
    assert merge(["nowhere"], "m") == 2
    assert "nowhere holds no study.json; expected the folder of a part" in capsys.readouterr().err
    assert run(ATTACKS, "--shard", "1/2", "--batch-size", "2", out="b") == 2
    assert "b/shard-1-of-2 was cut by --batch-size 1, and --batch-size is 2 now" in capsys.readouterr().err
    assert not Path("m", "runs").exists()


def test_the_same_row_with_other_content_is_refused_by_image_and_job(merged, tmp_path, monkeypatch, capsys):
    shutil.copytree(merged / "parts", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    first, second = (f"out/shard-{part}-of-3/runs/demo-scenes-s0" for part in (1, 2))
    with Store(f"{first}/results.sqlite") as one, Store(f"{second}/results.sqlite") as other:
        (job,) = jobs_of(one)
        image, result = next(iter(one.results(job).items()))
        other.add(job, [replace(result, seconds=99.0)])  # another time is no other content
        assert merge(["out/shard-1-of-3", "out/shard-2-of-3"], "fine") == 3
        capsys.readouterr()
        with other._base.base:
            other._base.drop("results", job, image)
        other.add(job, [replace(result, hit=result.hit + 1)])
    assert merge(["out/shard-1-of-3", "out/shard-2-of-3"], "m") == 2
    told = capsys.readouterr().err
    assert f"the row of image '{image}' of job {job} in results is another in {second} than in {first}" in told
    assert not list(Path("m").rglob("results.sqlite"))


def jobs_of(store: Store) -> list[str]:
    keys = store._base.base.execute("SELECT DISTINCT attack FROM results WHERE attack != 'clean'").fetchall()
    return [key for (key,) in keys]


def test_a_damaged_row_and_changed_files_are_refused_by_name(merged, tmp_path, monkeypatch, capsys):
    shutil.copytree(merged / "parts", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    folders = sorted(map(str, Path("out").glob("shard-*")))
    file = "out/shard-2-of-3/runs/demo-scenes-s0/results.sqlite"
    with Store(file) as store:
        noted = store.noted("sources")
        store.note("sources", noted | {"meaning": noted["meaning"] | {"classes": ["other"]}})
    assert merge(folders, "m") == 2
    told = capsys.readouterr().err
    assert "what the masks' values mean changed between out/shard-1-of-3" in told
    assert "out/shard-2-of-3" in told
    with Store(file) as store:
        store.note("sources", noted)
        with store._base.base:
            store._base.base.execute("UPDATE results SET hit = hit + 1")
    assert merge(folders, "m") == 2
    told = capsys.readouterr().err
    assert f"{file}: the row of image" in told
    assert "segradius verify out/shard-2-of-3/runs/demo-scenes-s0" in told


def test_a_part_may_be_empty(place):
    folders = parts(ATTACKS, 5)
    assert merge(folders) == 0
    assert len(digests()) == 1
