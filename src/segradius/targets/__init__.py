"""What black-box attacks ask: a network here, an ONNX file, a server; counted, budgeted, as harsh as deployed ones."""

from segradius.targets.exchange import Exchange
from segradius.targets.harsh import (
    Harsh,
    Jpeg,
    LabelsOnly,
    Rounded,
    TopK,
    Uint8,
    as_received,
    parse_answers,
    parse_inputs,
)
from segradius.targets.metered import Metered
from segradius.targets.oip import OipTarget, open_oip
from segradius.targets.oip_http import Clock, Policy, Traffic
from segradius.targets.onnx import OnnxTarget, open_onnx
from segradius.targets.opening import fingerprint, lasting, open_target, traffic_of
from segradius.targets.spool import Spooled
from segradius.targets.target import TARGETS, Local, Target, layers

__all__ = [
    "TARGETS",
    "Clock",
    "Exchange",
    "Harsh",
    "Jpeg",
    "LabelsOnly",
    "Local",
    "Metered",
    "OipTarget",
    "OnnxTarget",
    "Policy",
    "Rounded",
    "Spooled",
    "Target",
    "TopK",
    "Traffic",
    "Uint8",
    "as_received",
    "fingerprint",
    "lasting",
    "layers",
    "open_oip",
    "open_onnx",
    "open_target",
    "parse_answers",
    "parse_inputs",
    "traffic_of",
]
