"""A unit of work is plain data: sent anywhere, it opens what it names and gives the same rows."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator

import pytest

from segradius.evaluation import (
    Certification,
    CrossChecking,
    DataChoice,
    Experiment,
    InProcess,
    ModelChoice,
    Rows,
    Run,
    Smoothing,
    Store,
    Unit,
    certificates,
    execute,
    make_plans,
    open_choice,
    open_images,
    per_image_csv,
    units,
)

MODEL, DATA = ModelChoice("demo"), DataChoice("scenes:24x32", limit=3)
ATTACKS = Experiment(MODEL, DATA, make_plans(["fgsm", "pgd"], [("l2", 1.0)], {"steps": 2}), "random")
CERTIFICATES = Certification(MODEL, DATA, Smoothing(0.1, 5, 60), 0, CrossChecking(("pgd",), 1, 1, 9))


class Elsewhere:
    """Works on units that were sent, all before the first row comes back, in another order."""

    def begin(self, name: str, run: Run) -> None:
        """It opens what a unit names."""

    def end(self, name: str) -> None:
        """It keeps nothing."""

    def run(self, given: Iterable[Unit], progress) -> Iterator[tuple[Unit, Rows]]:
        sent = [pickle.dumps(unit) for unit in given]
        here = InProcess()  # knows neither model nor data
        back = [pickle.dumps(found) for text in reversed(sent) for found in here.run([pickle.loads(text)], progress)]
        return map(pickle.loads, back)


@pytest.mark.parametrize("size", [1, 2])
def test_attacks_elsewhere_give_the_same_results(size):
    found = []
    for executor in (InProcess(open_choice(MODEL), open_images(DATA)), Elsewhere()):
        run = Run(ATTACKS, open_choice(MODEL), open_images(DATA), size)
        with Store(":memory:") as store:
            execute(run, store, executor)
            assert list(units(run, store)) == []
            found.append(per_image_csv(ATTACKS, store, run.data.ids))
    assert found[0] == found[1]


def test_certificates_and_attacks_on_them_elsewhere_and_in_other_batches_give_the_same_bytes():
    found = []
    for executor, size in ((InProcess(open_choice(MODEL), open_images(DATA)), 1), (Elsewhere(), 2)):
        run = Run(CERTIFICATES, open_choice(MODEL), open_images(DATA), size)
        with Store(":memory:") as store:
            execute(run, store, executor)
            found.append(dict(certificates(CERTIFICATES, store, run.data.ids)))
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_a_unit_of_attacks_on_certificates_that_are_there_brings_them_along():
    run = Run(CERTIFICATES, open_choice(MODEL), open_images(DATA), 1)
    with Store(":memory:") as store:
        certified = Certification(MODEL, DATA, CERTIFICATES.way)
        execute(Run(certified, run.model, run.data, 1), store, InProcess(run.model, run.data))
        left = list(units(run, store))
    assert [[part.job.task.title for part in unit.parts] for unit in left] == [["under attack"]] * 3
    assert [list(unit.certificates) for unit in left] == [[image] for image in run.data.ids]


def test_a_normalisation_in_numbers_is_opened_from_its_description():
    given = {"mean": [0.5, 0.4, 0.3], "std": [1e-05, 0.2, 0.2]}
    network = open_choice(ModelChoice("smp:Unet,encoder_weights=null,classes=2", normalisation=str(given)))
    assert list(network.normalisation.mean) == pytest.approx(given["mean"])
    assert list(network.normalisation.std) == pytest.approx(given["std"])


def test_a_network_without_weights_is_the_same_wherever_it_is_opened():
    from segradius.models import fingerprint

    choice = ModelChoice("smp:Unet,encoder_weights=null,classes=2")
    one, same, other = (fingerprint(open_choice(choice, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other
