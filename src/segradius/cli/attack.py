"""``segradius attack``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from segradius.cli.options import DataOptions, ModelOptions, RunOptions, Subject, open_subject
from segradius.cli.surrogates import ITSELF, SurrogateOptions
from segradius.cli.workers import WORKERS, WorkerOptions
from segradius.core import text
from segradius.core.declared import Count, Length, Levels, Queries, Range, Restarts, Sigma, Whole
from segradius.core.errors import InputError, must
from segradius.core.safe_yaml import read_yaml
from segradius.core.screen import note

if TYPE_CHECKING:
    from segradius.cli.run_folder import Planned
    from segradius.evaluation import AttackPlan, Experiment

Names = str | list[str]
Norms = str | float | list[str | float]
Pairs = str | float | dict[str, Any] | list[Any]


@dataclass(frozen=True)
class AttackOptions:
    """The attacks.

    Args:
        attack: Attacks, commas between them; cr_ before any name guides it by the certified radius. See segradius list
            attacks, which tells the black-box ones from the others. With plan, labels in it. By default
            flips,pgd,cr_pgd; with target local_pbgd,local_search; with plan all that it has.
        plan: YAML file with attacks by label, each a mapping of attack: NAME and options of its own, under attacks;
            beside it norm and eps. Its options go before those given here, save LABEL.NAME=value in options.
        preset: paper sets what the paper sets where this library does otherwise by default, paper-code what the paper's
            published code does, published what the authors of each attack ran, published-tuned what SEA's authors found
            best for SegPGD and CosPGD; options that are given go before. Every difference is told. See docs/paper.md
            and docs/attacks.md.
        norm: Norms, of l1, l2, linf; by default those that eps names, or else l2.
        eps: Budget for images in [0, 1], over all values of an image: 1.5, or per norm and several at once,
            l2=0.5,1.5,linf=4/255. Default: the paper's l1=750,l2=1.5,linf=0.006, or l1=10000,l2=10,linf=0.05 if all
            attacks are black-box.
        steps: Steps T of white-box attacks. Default: the attack's own; the paper's 50 for l1 and l2, 20 for linf.
        queries: Queries of black-box attacks about each image, the noisy and the judging ones included. Default: the
            attack's own: 1000, or of the paper's attacks 30001 and of cr_pbgd 37505, which are its 15,000 rounds.
        alpha: Step length. Default: the attack's own; the paper's 2.5 eps/T for l1 and l2, eps/T for linf.
        gamma: How far from the iterate a black-box attack asks, in the unit of eps. Default: the attack's own.
        restarts: Runs, all but the first from a random start. Default: 1.
        start: Where the first run starts. Default: the attack's own, mostly zero.
        keep: Iterate that counts: the best by fooled pixels, or the last as in the paper. Default: best.
        projection: Exact onto ball and pixel box, or radial scaling as in the published code. Default: euclidean.
        band_weights: Weight w of each band, so that eps bounds the norm of w times the change, as 1,1,1,inf; inf for a
            band that is never changed. Lengths such as alpha are then those of w times the change. Default: all 1.
        lattice: Largest of the whole levels that adversarial images have, 255 for what a file of 8 bits can hold: they
            are then k/255, inside ball and box, and rounding changes nothing. Default: any values.
        samples: Noisy samples M behind the radius; 0 takes the confidences of the attack's own pass. Default: 8; 0 for
            cr_local_pbgd and cr_local_search and cr_mosaic.
        sigma: Standard deviation of that noise. Default: 0.001.
        every: Steps between refreshes of the radius (the paper's INT). Default: M for white-box attacks, 2M for
            black-box ones, 1 where M is 0.
        judge_every: Rounds of a black-box attack between verdicts on its iterate, one query each. Default: 0, the last
            iterate alone.
        marks: Query counts within which the iterate is judged too, for the curve, as in 200,400,800.
        options: Further options as name=value,name=value; see segradius list attacks.
        save_images: Keep every adversarial image: the folder adversarial gets each as NPZ, exact, and as PNG of 8 bits,
            and a list of them.
        gallery: How many images of each attack, of those hurt most and of those hurt least, are kept whole, with what
            the model sees in them, in the folder gallery; 0 for none.
        aim: Aim at a class (name or number), at random classes, or at a mask image. Default: untargeted.
    """

    attack: Names | None = None
    plan: str | None = None
    preset: Literal["paper", "paper-code", "published", "published-tuned"] | None = None
    norm: Norms | None = None
    eps: Pairs | None = None
    steps: Count | None = None
    queries: Queries | None = None
    alpha: Length | None = None
    gamma: Length | None = None
    restarts: Restarts | None = None
    start: Literal["zero", "uniform"] | None = None
    keep: Literal["best", "last"] | None = None
    projection: Literal["euclidean", "radial"] | None = None
    band_weights: str | list[str | float] | None = None
    lattice: Levels | None = None
    samples: Whole | None = None
    sigma: Sigma | None = None
    every: Count | None = None
    judge_every: Whole | None = None
    marks: str | int | list[int] | None = None
    options: Pairs | None = None
    aim: str | None = None
    save_images: bool = False
    gallery: Annotated[int, Range("[0, 1000]")] = 3

    def plans(self, default: str) -> tuple[AttackPlan, ...]:
        """The attacks, spelt out.

        Args:
            default: Their names where none are given.

        Raises:
            InputError: For an unknown name or option, or a value out of range.
        """
        from segradius.attacks import default_eps
        from segradius.threats.budgets import budgets

        if self.plan is None:
            names = text.names(self.attack or default)
            return self._made(names, budgets(self.norm, self.eps, default_eps(names)))
        return self.plans_of(*read_plan(self.plan, text.names(self.attack or [])))

    def plans_of(
        self, variants: Mapping[str, Mapping[str, Any]], norm: Norms | None = None, eps: Pairs | None = None
    ) -> tuple[AttackPlan, ...]:
        """Variants of attacks by label, each at every budget.

        Args:
            variants: As a plan has them under ``attacks``.
            norm: Of the plan, where none is given here.
            eps: The same.

        Raises:
            InputError: As `plans` does.
        """
        from segradius.attacks import default_eps
        from segradius.threats.budgets import budgets

        if self.norm is not None or any(key for key, _ in text.pairs(self.eps or [])):
            norm, eps = self.norm, self.eps
        elif self.eps is not None:
            eps = self.eps
        usual = default_eps([own["attack"] for own in variants.values()])
        return self._made(variants, budgets(norm, eps, usual))

    def _made(
        self, names: Sequence[str] | Mapping[str, Mapping[str, Any]], threats: Sequence[tuple[str, float]]
    ) -> tuple[AttackPlan, ...]:
        """The plans, after a line on what a preset sets."""
        from segradius.evaluation import make_plans

        plans = make_plans(names, threats, self._given(), self.preset)
        if any(plan.options.get("delta") == "signs" for plan in plans):
            note(
                "universal is given no delta: random signs are judged, and steps change nothing of them; one is fitted "
                "by segradius universal, and judged with --options delta=FILE"
            )
        if self.preset is not None:
            from segradius.attacks.presets import PRESETS, differences

            told = ((p, differences(self.preset, p.name, p.norm, p.eps, p.options)) for p in plans)
            for line in dict.fromkeys(
                f"{p.name} {p.norm} {p.eps:g}: {', '.join(d) or 'as by default'}" for p, d in told
            ):
                note(f"preset {self.preset}, {line}")
            note(f"preset {self.preset}: its MIoU is the column {PRESETS[self.preset].miou}")
            note(f"preset {self.preset} leaves {'; '.join(PRESETS[self.preset].left)}")
        return plans

    def _given(self) -> Mapping[str, Any]:
        """Options of attacks by name; None for those that were not given."""
        apart = ("attack", "plan", "preset", "norm", "eps", "options", "aim", "save_images", "gallery")
        named = {name: value for name, value in vars(self).items() if name not in apart}
        options = text.options(self.options)
        for name in options:
            must(named.get(name) is None, name, options[name], f"it once, and --{name} gives it beside --options")
        return named | {"marks": text.counts(self.marks)} | options


def read_plan(path: str, labels: Sequence[str] = ()) -> tuple[dict[str, dict[str, Any]], Norms | None, Pairs | None]:
    """Variants of attacks by label, norms and budgets, from a YAML file as ``--plan`` takes it.

    Args:
        path: The file.
        labels: Which of its attacks, in this order; all by default.

    Raises:
        InputError: It cannot be read, has an unknown key, an attack without a name or no attack of such a label.
    """
    given = read_yaml(path, "the plan")
    attacks = given.get("attacks") if isinstance(given, dict) else None
    if not isinstance(attacks, dict) or not attacks:
        raise InputError(f"{path}: expected attacks: {{LABEL: {{attack: NAME, OPTION: VALUE}}}}, and norm and eps")
    text.refuse_unknown(f"key of {path}", given, ("norm", "eps", "attacks"))
    text.refuse_unknown(f"label of {path}", labels, map(str, attacks))
    variants = {}
    for label, own in attacks.items():
        if not isinstance(own, dict) or not isinstance(own.get("attack"), str):
            raise InputError(f"{path}: {label} is {own!r}; expected {{attack: NAME, OPTION: VALUE}}")
        variants[str(label)] = {o: text.value_of(v) if isinstance(v, str) else v for o, v in own.items()}
    return {label: variants[label] for label in labels or variants}, given.get("norm"), given.get("eps")


#: Where the report goes unless said otherwise.
RUN = RunOptions("segradius-results")


def attack(
    data: DataOptions,
    model: ModelOptions,
    attack: AttackOptions,
    surrogates: SurrogateOptions = ITSELF,
    run: RunOptions = RUN,
    workers: WorkerOptions = WORKERS,
) -> int:
    """Attack a segmentation model over the images of a data set.

    A model that you have is attacked with its gradients, or without them; a target, which answers with scores only, by
    black-box attacks, which count every query, or by adversarial images that are made on another network. Prints a
    table and writes a report into a folder: results.json, per_image.csv, classes.csv, confusion.csv, table.md,
    figure.png, gallery and results.sqlite; of black-box attacks trace.csv and curve.png too. Started again, the same
    command goes on where it was stopped.
    """
    from segradius.cli.run_folder import carry_out, status
    from segradius.report.results import DEFAULT

    surrogates.check()
    asks = model.target is not None and not surrogates.specs
    plans = attack.plans("local_pbgd,local_search" if asks else ",".join(DEFAULT))
    of = surrogates.applied_to(open_subject(data, model, run), allow_download=model.network.allow_download)
    it = planned_attacks(of, plans, attack, run)
    executor = workers.hired(run.device, allow_download=model.network.allow_download)
    files = {"(l": attack.plan}  # "pgd (l2, ε = 1.5)"
    found = carry_out(it.run, run, it.report, files=files, executor=executor)
    return status(found, run)


def planned_attacks(
    of: Subject, plans: Sequence[AttackPlan], attack: AttackOptions, run: RunOptions, name: str = ""
) -> Planned[Experiment]:
    """Attacks on a model over images, as they are run and told.

    Args:
        of: Model and images.
        plans: The attacks.
        attack: What they aim at, and whether every image is kept.
        run: Where.
        name: Of the measurement in its study.
    """
    from segradius.cli.run_folder import Planned
    from segradius.evaluation import Experiment, Run, with_class_weights
    from segradius.report import report_attacks

    plans = with_class_weights(plans, of.data, of.seen.num_classes, predicted=of.choice.predicted)
    experiment = Experiment(of.model, of.choice, plans, attack.aim, run.seed)
    shown = of.data.ids[: run.figures]
    what = Run(experiment, of.seen, of.data, run.together or 8, shown, save=attack.save_images, gallery=attack.gallery)
    return Planned(what, run, report_attacks, name=name)
