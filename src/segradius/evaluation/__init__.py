"""Experiments: what to run, running it so that it can be stopped at any time, and what came out."""

from segradius.evaluation.certify_files import certified_csv, certified_json
from segradius.evaluation.certify_runner import CertifyRun, Study, Subject, certify_all
from segradius.evaluation.certify_summary import CertifiedRow, CertifiedSummary, summarise_certified
from segradius.evaluation.certifying import Certification, CrossChecking, Smoothing
from segradius.evaluation.check import check_classes, class_names, fault, usable
from segradius.evaluation.crosschecking import attackers, crosscheck_study
from segradius.evaluation.experiment import AttackPlan, DataChoice, Experiment, ModelChoice
from segradius.evaluation.files import per_image_csv, results_json, traces_csv
from segradius.evaluation.journal import Checkpoints, FileJournal, digest
from segradius.evaluation.plans import make_plans, with_class_weights
from segradius.evaluation.promises import least_copies
from segradius.evaluation.records import Kind, Record, Records, file_name
from segradius.evaluation.resuming import resumable, resumable_certification
from segradius.evaluation.runner import Job, Run, execute, prepare, work
from segradius.evaluation.seeing import Seen, judge, see
from segradius.evaluation.store import CLEAN, ImageResult, Kept, Pixels, Store
from segradius.evaluation.summary import Comparison, Row, Sanity, Summary, summarise
from segradius.evaluation.targets import make_target
from segradius.evaluation.traces import ImageTrace

__all__ = [
    "CLEAN",
    "AttackPlan",
    "Certification",
    "CertifiedRow",
    "CertifiedSummary",
    "CertifyRun",
    "Checkpoints",
    "Comparison",
    "CrossChecking",
    "DataChoice",
    "Experiment",
    "FileJournal",
    "ImageResult",
    "ImageTrace",
    "Job",
    "Kept",
    "Kind",
    "ModelChoice",
    "Pixels",
    "Record",
    "Records",
    "Row",
    "Run",
    "Sanity",
    "Seen",
    "Smoothing",
    "Store",
    "Study",
    "Subject",
    "Summary",
    "attackers",
    "certified_csv",
    "certified_json",
    "certify_all",
    "check_classes",
    "class_names",
    "crosscheck_study",
    "digest",
    "execute",
    "fault",
    "file_name",
    "judge",
    "least_copies",
    "make_plans",
    "make_target",
    "per_image_csv",
    "prepare",
    "results_json",
    "resumable",
    "resumable_certification",
    "see",
    "summarise",
    "summarise_certified",
    "traces_csv",
    "usable",
    "with_class_weights",
    "work",
]
