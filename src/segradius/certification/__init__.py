"""Certificates by randomized smoothing: what a segmentation model answers, with a promise of how far that holds."""

from segradius.certification.certificate import ABSTAIN, Certificate, boundary, certified_counts, information_gain
from segradius.certification.certifiers import Adaptive, Hierarchy, PixelRadii, SegCertify
from segradius.certification.crosscheck import Aim, CrossCheck, Summary, Verdict, aims, crosscheck, refuted, summarise
from segradius.certification.sampling import Noise, Sampling, answers
from segradius.certification.selftest import self_test
from segradius.certification.smoothed import Smoothed
from segradius.certification.soft import SoftRadii
from segradius.certification.testing import CORRECTIONS, anytime_p_values, p_values, rejected
from segradius.certification.votes import Votes, vote

__all__ = [
    "ABSTAIN",
    "CORRECTIONS",
    "Adaptive",
    "Aim",
    "Certificate",
    "CrossCheck",
    "Hierarchy",
    "Noise",
    "PixelRadii",
    "Sampling",
    "SegCertify",
    "Smoothed",
    "SoftRadii",
    "Summary",
    "Verdict",
    "Votes",
    "aims",
    "answers",
    "anytime_p_values",
    "boundary",
    "certified_counts",
    "crosscheck",
    "information_gain",
    "p_values",
    "refuted",
    "rejected",
    "self_test",
    "summarise",
    "vote",
]
