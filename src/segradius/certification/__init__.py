"""Certificates by randomized smoothing: what a segmentation model answers, with a promise of how far that holds."""

from segradius.certification.certificate import ABSTAIN, Certificate
from segradius.certification.confidences import SoftRadii
from segradius.certification.hierarchy import Adaptive, Hierarchy
from segradius.certification.measures import boundary, certified_counts, information_gain
from segradius.certification.noise import Noise, answers
from segradius.certification.radii import PixelRadii
from segradius.certification.sampling import Sampling
from segradius.certification.segcertify import SegCertify
from segradius.certification.testing import CORRECTIONS, anytime_p_values, p_values, rejected
from segradius.certification.votes import Votes, vote

__all__ = [
    "ABSTAIN",
    "CORRECTIONS",
    "Adaptive",
    "Certificate",
    "Hierarchy",
    "Noise",
    "PixelRadii",
    "Sampling",
    "SegCertify",
    "SoftRadii",
    "Votes",
    "answers",
    "anytime_p_values",
    "boundary",
    "certified_counts",
    "information_gain",
    "p_values",
    "rejected",
    "vote",
]
