"""What is, and what is not, part of an experiment's identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from segradius.attacks import ATTACKS, make_attack
from segradius.core.errors import InputError
from segradius.evaluation import (
    AttackPlan,
    Certification,
    CrossChecking,
    DataChoice,
    Experiment,
    ModelChoice,
    Smoothing,
    make_plans,
    with_class_weights,
)
from segradius.evaluation.job import plain
from segradius.models import fingerprint, tiled, wrap

PGD = AttackPlan("pgd", "l2", 1.5, {"steps": 3})
FGSM = AttackPlan("fgsm", "linf", 4 / 255)
ONE = Experiment(ModelChoice("demo", fingerprint="f"), DataChoice("scenes", limit=4), (PGD,), seed=7)


def test_the_key_of_a_result_is_the_same_on_every_machine():
    described = (
        '{"attack": {"eps": 1.5, "name": "pgd", "norm": "l2", "options": {"steps": 3}}, '
        '"data": {"protocol": null, "size": null, "spec": "scenes", "split": null}, '
        '"model": {"fingerprint": "f", "normalisation": null, "num_classes": null, "outputs": null, "spec": "demo"}, '
        '"seed": 7, "target": null}'
    )
    assert ONE.key(PGD) == hashlib.sha256(described.encode()).hexdigest()[:16]


def test_identities_are_those_that_earlier_runs_have():
    """As version f89093e printed them: folders of before go on, and records are found."""
    model, data, plan = ModelChoice("demo"), DataChoice("scenes"), AttackPlan("pgd", "l2", 1.5)
    attacked = Experiment(model, data, (plan,))
    assert (attacked.identity, attacked.key(plan)) == ("10a50672323d8a0d", "02f2ec39dd115c5e")
    certified = Certification(model, replace(data, limit=3), Smoothing(0.5))
    assert (certified.identity, certified.key) == ("29a7526acd658024", "9a4487703e92f1ea")
    assert replace(certified, crosscheck=CrossChecking(("cr_pgd",))).identity == "155e9ccb42b6a1b8"


def test_other_attacks_and_the_number_of_images_do_not_change_the_key():
    more = replace(ONE, attacks=(FGSM, PGD), data=replace(ONE.data, limit=None))
    assert more.key(PGD) == ONE.key(PGD)
    assert more.identity != ONE.identity


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, seed=8),
        replace(ONE, aim="road"),
        replace(ONE, model=replace(ONE.model, fingerprint="g")),
        replace(ONE, data=replace(ONE.data, size=(2, 2))),
        replace(ONE, data=replace(ONE.data, split="val")),
    ],
)
def test_whatever_determines_the_numbers_changes_the_key(other: Experiment):
    assert other.key(PGD) != ONE.key(PGD)
    assert other.extends(ONE.as_dict()) is not None


def test_the_options_of_an_attack_change_its_key():
    assert ONE.key(replace(PGD, options={"steps": 4})) != ONE.key(PGD)
    assert ONE.key(replace(PGD, eps=2.0)) != ONE.key(PGD)


def test_an_experiment_extends_itself_read_back_from_json():
    assert ONE.extends(json.loads(json.dumps(ONE.as_dict()))) is None


def test_more_attacks_and_more_images_extend_but_fewer_do_not():
    more = replace(ONE, attacks=(PGD, FGSM), data=replace(ONE.data, limit=5))
    assert more.extends(ONE.as_dict()) is None
    assert ONE.extends(more.as_dict()) == "data.limit is 4, and 5 in the earlier run"
    assert replace(more, attacks=(FGSM,)).extends(ONE.as_dict()) == "the earlier run also has pgd (l2, ε = 1.5)"


def test_an_option_that_an_earlier_version_had_not_is_named():
    """Folders of before do not go on with an attack that has other numbers now, or may have."""
    (now,) = make_plans(["pbgd"], [("l2", 10.0)])
    before = replace(now, options={name: value for name, value in now.options.items() if name != "form"})
    earlier = replace(ONE, attacks=(before,)).as_dict()
    expected = 'of pbgd (l2, ε = 10), form is "dense", and null in the earlier run'
    assert replace(ONE, attacks=(now,)).extends(earlier) == expected


def test_what_has_no_lasting_description_is_refused():
    with pytest.raises(InputError, match="cannot be part of an experiment"):
        plain({"a": object()})


def test_a_fingerprint_tells_weights_apart_and_not_copies():
    network = torch.nn.Conv2d(3, 2, 1)
    before = fingerprint(wrap(network, num_classes=2))
    copy = torch.nn.Conv2d(3, 2, 1)
    copy.load_state_dict(network.state_dict())
    assert fingerprint(wrap(copy, num_classes=2)) == before
    with torch.no_grad():
        network.bias[0] += 1e-3
    assert fingerprint(wrap(network, num_classes=2)) != before
    assert fingerprint(wrap(copy, num_classes=2, normalisation="imagenet")) != before
    tiles = [fingerprint(tiled(wrap(copy, num_classes=2), crop=(8, 8), scales=scales)) for scales in ((1,), (1, 2))]
    assert len({before, *tiles}) == 3
    assert fingerprint(wrap(lambda x: x[:, :2], num_classes=2)) == ""


def test_an_option_goes_to_the_attacks_that_take_it():
    plans = make_plans(["pgd", "cr_pgd"], [("l2", 1.0), ("linf", 0.1)], {"sigma": 0.5, "alpha": None})
    assert [(p.name, p.norm, p.eps) for p in plans] == [
        ("pgd", "l2", 1.0),
        ("cr_pgd", "l2", 1.0),
        ("pgd", "linf", 0.1),
        ("cr_pgd", "linf", 0.1),
    ]
    assert ["sigma" in plan.options for plan in plans] == [False, True, False, True]
    assert plans[1].options["sigma"] == 0.5


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name in ATTACKS for option in ATTACKS.facts(name)["fixed"]]
)
def test_what_an_attack_determines_by_itself_is_left_to_the_others(name: str, option: str):
    values = {"steps": 7, "alpha": 0.5, "start": "uniform", "keep": "last", "sparse": 0.1, "restarts": 2}
    value = (values | {"patch": 0.1, "place": "centre"})[option]
    norm = ATTACKS.facts(name)["norms"][0]  # l1 where it can be, for sparse
    with pytest.raises(InputError, match=f"{name} determines {option} by itself"):
        make_attack(name, norm=norm, eps=0.1, **{option: value})
    if option in ("patch", "place") or (option == "sparse" and norm != "l1"):
        return  # nor is it, alone, for another attack, or in this norm
    plans = make_plans([name, f"cr_{name}", "pgd"], [(norm, 0.1)], {option: value})
    assert [plan.options.get(option) for plan in plans] == [None, None, value]


def test_an_option_that_no_attack_takes_is_an_error_with_the_nearest():
    with pytest.raises(InputError, match=r"none of the attacks pgd takes 'stteps': .*'steps'"):
        make_plans(["pgd"], [("l2", 1.0)], {"stteps": 4})


@pytest.mark.parametrize(
    ("names", "option", "message"),
    [
        (["pgd"], "step", "; did you mean 'steps'? step is an option of nes, opge, pbgd, zoo"),
        (["pbgd"], "steps", "; did you mean 'step'? steps is an option of alma_prox, apgd, "),
        (["pgd", "sea"], "every", ": every is an option of attacks guided by the radius: cr_pgd, cr_sea"),
        (["pgd", "cr_pbgd"], "pgd.every", ": every is an option of attacks guided by the radius: cr_pgd"),
        ({"mine": {"attack": "pgd"}}, "mine.sigma", ": sigma is an option of attacks guided by the radius: cr_pgd"),
        (["pgd"], "sea.steps", ": unknown option 'sea.steps'"),
    ],
)
def test_an_option_of_other_attacks_is_told_by_their_names(names, option, message):
    with pytest.raises(InputError) as caught:
        make_plans(names, [("l2", 1.0)], {option: 4})
    assert f"takes {option!r}{message}" in str(caught.value)


def test_an_option_of_other_attacks_is_told_of_a_variant_too():
    with pytest.raises(InputError, match=r"unknown option of mine 'samples': samples is an option of .*: cr_pgd$"):
        make_plans({"mine": {"attack": "pgd", "samples": 3}}, [("l2", 1.0)])


def test_class_weights_are_counted_in_the_readable_images_for_the_attacks_that_take_them():
    from segradius.data import BadSampleError, Classes, Sample

    class Data:
        name, ids, classes = "two", ("a", "b"), Classes(("x", "y"), ((0, 0, 0), (1, 1, 1)))

        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index:
                raise BadSampleError("b", "b.jpg", "truncated")
            return Sample("a", torch.zeros(3, 1, 5), torch.tensor([[0, 0, 0, 1, 255]]))

    pgd, sea = with_class_weights(make_plans(["pgd", "sea"], [("l2", 1.0)]), Data(), num_classes=3)
    assert "class_weights" not in pgd.options
    assert sea.options["class_weights"] == pytest.approx((4 / 6, 2.0, 0.0))


def test_the_same_weights_under_another_path_are_the_same_experiment():
    here = replace(ONE, model=replace(ONE.model, weights="a.safetensors", fingerprint="f"))
    there = replace(ONE, model=replace(ONE.model, weights="folder/a.safetensors", fingerprint="f"))
    other = replace(ONE, model=replace(ONE.model, weights="a.safetensors", fingerprint="g"))
    assert here.key(PGD) == there.key(PGD) != other.key(PGD)
    assert here.extends(there.as_dict()) is None
    assert here.extends(other.as_dict()) is not None


def test_a_label_changes_no_number_and_is_described_only_where_it_says_more_than_the_name():
    named = replace(ONE, attacks=(replace(PGD, label="short"),))
    assert named.key(named.attacks[0]) == ONE.key(PGD)
    assert "label" not in ONE.as_dict()["attacks"][0]
    assert named.as_dict()["attacks"][0]["label"] == "short"
    assert named.extends(ONE.as_dict()) is None
    assert replace(PGD, label="pgd") == PGD
