"""Experiments: what to run, running it so that it can be stopped at any time, and what came out."""

from segradius.evaluation.check import check_classes, fault
from segradius.evaluation.experiment import AttackPlan, DataChoice, Experiment, ModelChoice
from segradius.evaluation.files import per_image_csv, results_json
from segradius.evaluation.judging import judge
from segradius.evaluation.plans import make_plans, with_class_weights
from segradius.evaluation.runner import Job, Run, execute, prepare, work
from segradius.evaluation.store import CLEAN, ImageResult, Pixels, Store
from segradius.evaluation.summary import Comparison, Row, Sanity, Summary, summarise
from segradius.evaluation.targets import make_target

__all__ = [
    "CLEAN",
    "AttackPlan",
    "Comparison",
    "DataChoice",
    "Experiment",
    "ImageResult",
    "Job",
    "ModelChoice",
    "Pixels",
    "Row",
    "Run",
    "Sanity",
    "Store",
    "Summary",
    "check_classes",
    "execute",
    "fault",
    "judge",
    "make_plans",
    "make_target",
    "per_image_csv",
    "prepare",
    "results_json",
    "summarise",
    "with_class_weights",
    "work",
]
