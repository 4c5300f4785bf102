"""A study is read from YAML, expands to measurements, and errors name its keys."""

from __future__ import annotations

import pytest

from segradius.core.errors import InputError
from segradius.evaluation.study import Study

SMALL = {"models": {"demo": "demo"}, "data": {"scenes": "scenes:24x32"}, "attacks": ["pgd"]}


def study(**more) -> Study:
    return Study.of({**SMALL, **more}, "s.yaml")


def test_measurements_are_models_by_seeds_by_data_those_of_a_model_together():
    found = study(
        models={"a": "demo", "b": {"target": "demo"}},
        data={"x": "scenes:24x32", "y": {"data": "scenes:32x32", "limit": 3}},
        seeds=[0, 7],
        certify={"limit": 2},
    )
    names = [each.name for each in found.measurements]
    pairs = [f"{model}-{data}-s{seed}" for model in "ab" for seed in (0, 7) for data in "xy"]
    assert names == [name for pair in pairs for name in (pair, f"{pair}-certify-sigma0.25")]
    assert {each.kind for each in found.measurements} == {"attack", "certify"}
    assert found.models["b"] == {"target": "demo"}
    assert found.measurements[1].images == {"limit": 2}


def test_a_sweep_gives_one_variant_for_each_value_and_several_each_combination():
    found = study(
        attacks={"pgd": None, "cr_pgd": {"attack": "cr_pgd", "steps": 5, "samples": 8}},
        sweeps={"cr_pgd.samples": [1, 2], "cr_pgd.every": [3, 4]},
    )
    assert list(found.attacks) == ["pgd", *(f"cr_pgd samples={m} every={k}" for m in (1, 2) for k in (3, 4))]
    assert found.attacks["cr_pgd samples=2 every=3"] == {"attack": "cr_pgd", "steps": 5, "samples": 2, "every": 3}
    assert [each.name for each in found.measurements] == ["demo-scenes-s0"]  # in the same measurement


def test_a_sweep_over_certifications_gives_a_measurement_each_and_adding_one_keeps_the_names():
    alone = study(certify={"sigma": 0.1}).measurements
    swept = study(certify={"n": 50}, sweeps={"certify.sigma": [0.1, 0.25], "certify.n0": [10, 20]}).measurements
    assert [each.name for each in alone[1:]] == ["demo-scenes-s0-certify-sigma0.1"]
    assert [each.name.removeprefix("demo-scenes-s0-certify-") for each in swept[1:]] == [
        "sigma0.1-n010",
        "sigma0.1-n020",
        "sigma0.25-n010",
        "sigma0.25-n020",
    ]
    assert swept[1].options == {"n": 50, "sigma": 0.1, "n0": 10}
    one = study(certify={"n": 50}, sweeps={"certify.sigma": [0.1]}).measurements
    assert one[1].name == alone[1].name
    for how, value in (("lipschitz", "verified"), ("patch", 0.01)):
        assert study(certify={how: value}).measurements[1].name == f"demo-scenes-s0-certify-{how}{value}"


def test_attacks_that_aim_elsewhere_are_measurements_of_their_own():
    found = study(attacks={"pgd": {}, "at": {"attack": "pgd", "aim": "random"}, "there": {"attack": "fgsm", "aim": 1}})
    assert [(each.name, each.aim, list(each.attacks)) for each in found.measurements] == [
        ("demo-scenes-s0", None, ["pgd"]),
        ("demo-scenes-s0-aim-random", "random", ["at"]),
        ("demo-scenes-s0-aim-1", "1", ["there"]),
    ]


def test_clean_is_a_measurement_where_no_attack_judges_the_images_and_attacks_go_on_in_its_folder():
    alone = {"models": {"demo": "demo"}, "data": {"scenes": "scenes"}, "clean": True}
    before, after = Study.of(alone).measurements, Study.of(alone | {"attacks": "pgd"}).measurements
    assert [(each.name, each.kind) for each in before] == [("demo-scenes-s0", "evaluate")]
    assert [(each.name, each.kind) for each in after] == [("demo-scenes-s0", "attack")]


@pytest.mark.parametrize("label", ["a/b", "a b", "ä", "con", ".hidden", "x" * 300])
def test_labels_of_any_kind_are_names_of_folders(label):
    (one,) = study(models={label: "demo"}).measurements
    assert "/" not in one.name
    assert len(one.name) < 200
    assert one.model == label


def test_labels_that_would_share_a_folder_are_refused_by_name():
    with pytest.raises(
        InputError, match=r"s\.yaml: two measurements would be in the folder a-scenes-s0: model A and model a"
    ):
        study(models={"A": "demo", "a": "demo"})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], r"s\.yaml is \[\]; expected a mapping with models, data and what is measured"),
        ({"modles": {}}, r"unknown key of s\.yaml 'modles'; did you mean 'models'"),
        ({"models": {"a": "demo"}}, r"s\.yaml: data is missing"),
        ({"models": ["demo"], "data": {"a": "scenes"}}, r"s\.yaml: models is \['demo'\]; expected \{LABEL: model or"),
        ({"models": {"a": 3}, "data": {"a": "scenes"}}, r"s\.yaml: models\.a is 3; expected a model as --model takes"),
        ({"models": {"a": "demo"}, "data": {"a": "scenes"}}, r"s\.yaml asks for nothing; expected attacks, certify or"),
        (SMALL | {"seeds": [0, 0]}, r"s\.yaml: seeds is \[0, 0\]; expected one or several, each once"),
        (SMALL | {"seeds": ["a"]}, r"s\.yaml: seeds is 'a'; expected a whole number"),
        (SMALL | {"clean": "yes"}, r"s\.yaml: clean is 'yes'; expected true or false"),
        (SMALL | {"budgets": {"epsilon": 1}}, r"unknown key of s\.yaml: budgets 'epsilon'"),
        (SMALL | {"budgets": {"eps": []}}, r"s\.yaml: budgets\.eps is \[\]; expected one or several, or no such key"),
        (SMALL | {"attacks": ["pgd", "pgd"]}, r"s\.yaml: attacks has 'pgd' twice; expected each once"),
        (SMALL | {"attacks": {"": {"attack": "pgd"}}}, r"s\.yaml: attacks has an empty label"),
        (SMALL | {"attacks": 3}, r"s\.yaml: attacks is 3; expected \{LABEL: "),
        (SMALL | {"attacks": {"a": 3}}, r"s\.yaml: attacks\.a is 3; expected \{attack: NAME"),
        (SMALL | {"sweeps": {"samples": [1]}}, r"s\.yaml: sweeps: 'samples' is no LABEL\.OPTION, as cr_pgd\.samples"),
        (SMALL | {"sweeps": {"pdg.samples": [1]}}, r"s\.yaml: sweeps\.pdg\.samples: unknown label 'pdg'; did you mean"),
        (SMALL | {"sweeps": {"pgd.samples": 1}}, r"s\.yaml: sweeps\.pgd\.samples is 1; expected a list of values"),
        (SMALL | {"sweeps": {"pgd.samples": [1, "1"]}}, r"s\.yaml: sweeps\.pgd\.samples has a value twice"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(given, told):
    with pytest.raises(InputError, match=told):
        Study.of(given, "s.yaml")
