"""Experiments: what to run, running it so that it can be stopped at any time, and what came out."""

from segradius.evaluation.check import check_classes, fault
from segradius.evaluation.experiment import AttackPlan, DataChoice, Experiment, ModelChoice
from segradius.evaluation.files import per_image_csv, results_json, traces_csv
from segradius.evaluation.journal import Checkpoints, FileJournal
from segradius.evaluation.plans import make_plans, with_class_weights
from segradius.evaluation.resuming import resumable
from segradius.evaluation.runner import Job, Run, execute, prepare, work
from segradius.evaluation.seeing import Seen, judge, see
from segradius.evaluation.store import CLEAN, ImageResult, Kept, Pixels, Store
from segradius.evaluation.summary import Comparison, Row, Sanity, Summary, summarise
from segradius.evaluation.targets import make_target
from segradius.evaluation.traces import ImageTrace

__all__ = [
    "CLEAN",
    "AttackPlan",
    "Checkpoints",
    "Comparison",
    "DataChoice",
    "Experiment",
    "FileJournal",
    "ImageResult",
    "ImageTrace",
    "Job",
    "Kept",
    "ModelChoice",
    "Pixels",
    "Row",
    "Run",
    "Sanity",
    "Seen",
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
    "resumable",
    "see",
    "summarise",
    "traces_csv",
    "with_class_weights",
    "work",
]
