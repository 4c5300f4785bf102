"""An assessment as it is carried out: what a budget allows, told before it is done, in stages; and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from segradius.attacks.make import make_attack
from segradius.cli.attack import AttackOptions, planned_attacks
from segradius.cli.certify import SmoothingOptions, WayOptions, planned_certificates
from segradius.cli.options import RunOptions, Subject
from segradius.cli.run_folder import SET_ASIDE, Planned, begun, executed, reported, units_of
from segradius.core.bands import bands_of
from segradius.core.contracts import Model, Seen
from segradius.core.errors import InputError, MissingExtraError
from segradius.core.escapes import listed
from segradius.core.screen import console, note, say, warn
from segradius.core.seal import read_json
from segradius.core.secrets import redacted
from segradius.core.storage import as_json, write_atomically
from segradius.data.sample import SegmentationData
from segradius.data.usable import usable
from segradius.evaluation.attack import AttackPlan
from segradius.evaluation.batch import is_priced, judge
from segradius.evaluation.driver import check_fit
from segradius.evaluation.expecting import Passes, Price, priced
from segradius.evaluation.folders import RUNS, SCHEMA, STUDY, run_folders
from segradius.evaluation.job import DataChoice, Experiment, ModelChoice
from segradius.evaluation.ladder import Ladder, Rung, State, choose, ladder_at, rungs_of, states, step_of
from segradius.evaluation.run import InProcess, Run, first_usable, open_images, work
from segradius.evaluation.sizing import USUAL
from segradius.report.assess import assessment_lines, assessment_table, certified_lines, left_of
from segradius.report.assess_rules import default_policy, verdict_lines
from segradius.report.cells import Cells, page
from segradius.report.policy import read_policy
from segradius.report.ruled import ruled, sources
from segradius.report.story import as_interval, read_story
from segradius.report.verdict_of_rules import rules_report, verdict_of

#: Share of the time for what no pass pays for: reading, checks, the report.
SPARE = 0.15
#: Noisy copies behind a quick certificate: those that name a class, and those that test it.
COPIES = (10, 100)
#: What was planned and done, and what it came to, in the folder of an assessment.
STATE, WORDS, PAGE = "assessment.json", "assessment.md", "report.html"
#: The rules that a release must keep to, which are there to be changed; and what they said.
POLICY, GATE = "policy.yaml", "gate.json"
#: Of the measurement.
NAME = "assessed"
#: Of the first so many images one must be usable, for trials.
FIRST = 4
#: Steps of an attack that is tried.
TRIAL = 3


@dataclass(frozen=True)
class Allowance:
    """What may be spent.

    Attributes:
        amount: How much.
        unit: Of what.
    """

    amount: float
    unit: Literal["seconds", "passes", "queries"]

    @property
    def usable(self) -> float:
        """What of it passes may take."""
        return self.amount * (1 - SPARE) if self.unit == "seconds" else self.amount

    def told(self, amount: float) -> str:
        """An amount, for people.

        Example:
            >>> Allowance(600, "seconds").told(90), Allowance(600, "passes").told(90)
            ('1.5 minutes', '90 passes')
        """
        return f"{amount / 60:.1f} minutes" if self.unit == "seconds" else f"{amount:.0f} {self.unit}"


@dataclass(frozen=True)
class Assessment:
    """A model that is assessed.

    Attributes:
        seen: The network or target.
        model: As it was asked for.
        data: All images that there are, in spread order.
        choice: As they were asked for.
        at: The folder, and how runs in it are made.
        allowance: What may be spent.
        threats: Norms and budgets of the attacks.
        policy: File of the rules that are judged; None for those that the folder gets.
        sigma: Of the noise of a certificate; None for none.
    """

    seen: Seen
    model: ModelChoice
    data: SegmentationData
    choice: DataChoice
    at: RunOptions
    allowance: Allowance
    threats: tuple[tuple[str, float], ...]
    policy: Path | None = None
    sigma: float | None = None
    _cleared: set[str] = field(default_factory=set, compare=False)

    def carry_out(self) -> int:
        """Plan, say what will be done, do it, and say what it came to; the exit status."""
        begun = time.monotonic()
        again = bool(self._kept())
        ladder, cost = self._ladder()
        self._keep(ladder, cost)
        self._tell(ladder, cost, again=again)
        aside = self._attack(ladder)
        runs = [self._named("attack")]
        if ladder.certified and self.sigma is not None:
            self._certify(ladder.certified, self.sigma)
            runs.append(self._named("certify"))
        self._write(STUDY, as_json({"schema": SCHEMA, "measurements": runs}))
        status = self._conclude(ladder)
        say(f"It took {(time.monotonic() - begun) / 60:.1f} minutes.")
        if aside and self.at.fail_on_set_aside:
            warn(f"{len(aside)} image(s) set aside, {listed(aside)}: exit status {SET_ASIDE}")
            return SET_ASIDE
        return status

    @property
    def groups(self) -> Any:
        """Rungs of the ladder."""
        return rungs_of(self.threats, asks=is_priced(self.seen))

    @property
    def _copies(self) -> int:
        return sum(COPIES) if self.sigma is not None else 0

    def _ladder(self) -> tuple[Ladder, Price]:
        """What the budget allows; as it was, where it is that of an earlier run."""
        images, groups, mine = len(self.data), self.groups, self.allowance
        kept = self._kept()
        reached = State(*kept["state"]) if kept else None
        same = kept.get("allowance") == [mine.amount, mine.unit] and kept.get("sigma") == self.sigma
        if reached is not None and same:
            cost, every = Price(*kept["cost"]), states(len(groups), images)
            step = step_of(every, reached)
            return ladder_at(groups, cost, mine.usable, images, step, copies=self._copies), cost
        cost = self._cost()
        return choose(groups, cost, mine.usable, images, copies=self._copies, reached=reached), cost

    def _cost(self) -> Price:
        """Of a pass over the first image, measured where time is counted."""
        if self.allowance.unit != "seconds":
            return Price(1, 2)
        run = self._attacks(min(len(self.data), FIRST), ()).run
        check_fit(run)  # an image without a mask is no image that cannot be used
        found = priced(run)
        if found is None:
            labels, bands = not self.choice.predicted, bands_of(run.model)
            why = usable(run.data, 0, run.model.num_classes, labels=labels, bands=bands)
            told = f"none of the first {len(run.data)} images could be used, the first for: {why}"
            raise InputError(f"{told}; segradius data check tells of all")
        longer = lengthened(run, found, self.threats[0], self.at.together or USUAL)
        told = f"a pass over an image takes {found.forward:.3g} s, {found.both:.3g} s with its gradient"
        note(f"{told}; attacks take {longer:.2f} times their passes")
        return Price(longer * found.forward, longer * found.both)

    # -- what is run --

    def _subject(self, images: int) -> Subject:
        choice = replace(self.choice, limit=images)
        return Subject(self.seen, self.model, open_images(choice), choice)

    def _attacks(self, images: int, plans: Sequence[AttackPlan]) -> Planned[Experiment]:
        at, name = self._at("attack"), self._name("attack")
        return planned_attacks(self._subject(images), plans, AttackOptions(), at, name)

    def _attack(self, ladder: Ladder) -> list[str]:
        """The attacks of a ladder; ids of images set aside."""
        return _finished(self._attacks(ladder.images, [rung.plan for rung in ladder.rungs]), self.at.folder)

    def _certify(self, images: int, sigma: float) -> None:
        options = SmoothingOptions(sigma=sigma, n0=COPIES[0], n=COPIES[1])
        subject, at = self._subject(images), self._at("certify")
        _finished(planned_certificates(subject, WayOptions(options), None, at, self._name("certify")), self.at.folder)

    # -- the folder --

    def _folder(self, kind: str) -> Path:
        return self.at.folder / RUNS / self._name(kind)

    def _name(self, kind: str) -> str:
        return f"{NAME}-s{self.at.seed}" + (f"-certify-sigma{self.sigma:g}" if kind == "certify" else "")

    def _at(self, kind: str) -> RunOptions:
        """Of a run; what another left is replaced once, not what an earlier stage has just found."""
        overwrite = self.at.overwrite and kind not in self._cleared
        self._cleared.add(kind)
        return replace(self.at, out=str(self._folder(kind)), overwrite=overwrite)

    def _named(self, kind: str) -> dict[str, Any]:
        name = self._name(kind)
        about = {"name": name, "folder": f"{RUNS}/{name}", "kind": kind, "seed": self.at.seed}
        return about | {"model": redacted(self.model.spec), "data": redacted(self.choice.spec)}

    def _report(self, kind: str) -> Any:
        return read_json(self._folder(kind) / "results.json")

    def _write(self, name: str, content: str) -> None:
        self.at.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.at.folder / name, content)

    def _kept(self) -> dict[str, Any]:
        """What an earlier run planned for the same attacks on the same network; nothing where it did for others."""
        file = self.at.folder / STATE
        if self.at.overwrite or not file.is_file():
            return {}
        found = read_json(file)
        return found if found.get("of") == self._of else {}

    @property
    def _of(self) -> list[Any]:
        return [self.model.fingerprint, [list(each) for each in self.threats], self.at.seed]

    def _keep(self, ladder: Ladder, cost: Price) -> None:
        found = {
            "schema": 1,
            "of": self._of,
            "allowance": [self.allowance.amount, self.allowance.unit],
            "sigma": self.sigma,
            "cost": [cost.forward, cost.both],
            "state": [ladder.state.images, ladder.state.groups],
            "certified": ladder.certified,
            "attacks": [[rung.label, rung.norm, rung.eps] for rung in ladder.rungs],
            "left_out": [[rung.label, rung.norm, rung.eps] for rung in ladder.left_out],
            "expected": ladder.price,
        }
        self._write(STATE, as_json(found))

    # -- what is said --

    def _tell(self, ladder: Ladder, cost: Price, *, again: bool) -> None:
        """What will be done, how long that takes, and what is left out."""
        mine, unit = self.allowance, {"seconds": "s"}.get(self.allowance.unit, self.allowance.unit)
        rows = [["look at each as it is", "", f"{cost.forward:.3g}", "clean accuracy, and checks of the network"]]
        for rung in ladder.rungs:
            levels = f" ({255 * rung.eps:.3g}/255)" if rung.norm == "linf" else ""
            rows.append([rung.label, f"{rung.norm} {rung.eps:.4g}{levels}", f"{rung.price(cost):.3g}", rung.why])
        if ladder.certified:
            price = f"{self._copies * cost.forward:.3g}"
            rows.append([f"certificate of {ladder.certified}", f"σ {self.sigma:g}", price, "what can be proved"])
        title = f"On {ladder.images} of {len(self.data)} images, from everywhere in the data"
        console().print(Cells(title, ("attack", "change of at most", f"{unit} an image", "what for"), rows).rich())
        within = f"of {mine.told(mine.amount)}"
        kept = ", of which what an earlier run left in the folder is not done again" if again else ""
        say(f"That takes about {mine.told(ladder.price)} {within}{kept}.")
        if ladder.price > mine.usable:
            warn(f"{mine.told(mine.amount)} do not reach for less than this: it will take longer")
        if ladder.left_out:
            say(f"Left out for want of budget: {', '.join(named(ladder.left_out))}.")
        if ladder.next_price:
            scale = mine.amount / mine.usable
            say(f"The next step up, more images or attacks, would take about {mine.told(scale * ladder.next_price)}.")

    def _conclude(self, ladder: Ladder) -> int:
        """The tables, the words and the verdict, on screen and in a file; and the page. The exit status."""
        report, predicted = self._report("attack"), self.choice.predicted
        clean, left = as_interval(report["rows"][0]["pixacc"]), left_of(report["rows"])
        table = assessment_table(clean, left, predicted=predicted)
        lines = list(
            assessment_lines(
                clean, left, report.get("verdicts", ()), named(ladder.left_out),
                predicted=predicted, whole=len(self.data),
            )
        )  # fmt: skip
        if ladder.certified:
            lines += certified_lines(self._report("certify"))
        status, verdict = self._judge()
        lines = [*verdict, *lines]
        made = self._page(lines)
        lines += [f"Deeper: {self._more(ladder)}segradius attack, with attacks of your own choice; certify."]
        lines += ["What each line means, and what it does not: docs/assess.md."]
        console().print(table.rich())
        for line in lines:
            say(line)
        self._write(WORDS, page([table], lines))
        say(f"All of it: {self.at.folder}{f', begin with {PAGE}' if made else ''}")
        return status

    def _judge(self) -> tuple[int, list[str]]:
        """The exit status by the rules, and what they say; rules that the user wrote are left as they are."""
        file = self.policy or self.at.folder / POLICY
        if not file.is_file() or (self.policy is None and self.at.overwrite):
            self._write(POLICY, default_policy(self.threats))
        judged = ruled(read_policy(file), sources([self.at.folder]))
        self._write(GATE, as_json(rules_report(judged, file.name)))
        return verdict_of(judged).status, list(verdict_lines(judged, str(file)))

    def _more(self, ladder: Ladder) -> str:
        """What more of the budget adds to; nothing where all rungs were run on all images."""
        option = "budget" if is_priced(self.seen) else "minutes"
        return f"more --{option} in the same folder; " if ladder.next_price else ""

    def _page(self, lines: Sequence[str]) -> bool:
        """The page for people, which begins with the verdict and the sentences; whether it could be made."""
        from segradius.report.webpage import webpage

        runs = [run for run in run_folders([self.at.folder]) if run.is_reported]
        try:
            self._write(PAGE, webpage([read_story(run) for run in runs], findings=lines))
        except MissingExtraError as error:
            note(f"no {PAGE}: {error}")
            return False
        return True


def named(rungs: Sequence[Rung]) -> list[str]:
    """Attacks with their budgets, each once.

    Example:
        >>> named(rungs_of([("linf", 4 / 255)], asks=False)[0])
        ['fgsm (linf 0.0157)', 'flips (linf 0.0157)']
    """
    return list(dict.fromkeys(f"{rung.label} ({rung.norm} {rung.eps:.3g})" for rung in rungs))


def _finished(planned: Planned[Any], folder: Path) -> list[str]:
    """A measurement carried out and reported, without its tables on screen; ids of images set aside."""
    with begun(planned) as going:
        unit, total = units_of([going.run]), work(going.run, going.store)
        for _ in executed([going], InProcess(warn=warn), unit, total, folder):
            pass
        return list(reported(going).summary.set_aside)


def lengthened(run: Run[Experiment], cost: Price, threat: tuple[str, float], together: int) -> float:
    """How many times as long an attack of a few steps takes as its passes, each of one image, would.

    Args:
        run: Of the model and images, of which the first that can be used is attacked.
        cost: Of a pass, measured.
        threat: Norm and budget.
        together: Images at a time, of which an accelerator has as many copies of the image; a processor one.
    """
    sample = first_usable(run)
    assert sample is not None
    copies = 1 if run.model.device.type == "cpu" else together
    images = sample.image[None].expand(copies, -1, -1, -1).contiguous().to(run.model.device)
    with run.model.frozen():
        labels = judge(run.model, images)[0]
    attack = make_attack("flips", norm=threat[0], eps=threat[1], steps=TRIAL)
    started = time.perf_counter()
    attack(cast(Model, run.model), images, labels, ids=tuple(map(str, range(copies)))).prediction.sum().item()
    return (time.perf_counter() - started) / (copies * cost.of(Passes(TRIAL + 1, TRIAL)))
