"""Data sets, evaluation protocols, and procedural scenes."""

from segradius.data.ade20k import ADE20K
from segradius.data.camvid import CAMVID
from segradius.data.cityscapes import CITYSCAPES
from segradius.data.folder import FolderSpec
from segradius.data.opening import Prepared, open_data
from segradius.data.protocols import PROTOCOLS, Preparation, Resize
from segradius.data.sample import DATA, BadSampleError, Classes, Sample, SegmentationData, class_counts, collate
from segradius.data.scenes import SCENE_CLASSES, Scenes
from segradius.data.voc import VOC

__all__ = [
    "ADE20K",
    "CAMVID",
    "CITYSCAPES",
    "DATA",
    "PROTOCOLS",
    "SCENE_CLASSES",
    "VOC",
    "BadSampleError",
    "Classes",
    "FolderSpec",
    "Preparation",
    "Prepared",
    "Resize",
    "Sample",
    "Scenes",
    "SegmentationData",
    "class_counts",
    "collate",
    "open_data",
]
