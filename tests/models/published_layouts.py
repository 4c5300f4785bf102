"""Names and shapes in the files that others published, written down from their code; no file of theirs is needed.

Each layout is a mapping of names to shapes, made by a generator of a part and the parts in it:

- ``sea_upernet``, ``sea_segmenter``, ``sea_ddcat``: nmndeep/Robust-Segmentation, ``semseg/models`` (bare state dicts;
  the last as DDC-AT's authors save it, under ``state_dict`` with ``module.`` before names).
- ``segcertify``: eth-sri/segmentation-smoothing, ``tools/train.py`` and ``lib/utils/utils.py`` over ``seg_hrnet`` of
  HRNet/HRNet-Semantic-Segmentation: the training wrapper's state, with its loss and its parameter ``std``.
- ``semseg_psp``, ``semseg_psa``: hszhao/semseg, ``tool/train.py``: under ``state_dict``, ``module.`` before names.
- ``hrnet_ocr``: HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR: the training wrapper's state, with its loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Shapes = Iterator[tuple[str, tuple[int, ...]]]
COUNTS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    """A convolution, a linear layer or a norm: a weight of the shape, and a bias of its first side."""
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def batch_norm(name: str, width: int) -> Shapes:
    yield from layer(name, width)
    yield f"{name}.running_mean", (width,)
    yield f"{name}.running_var", (width,)
    yield f"{name}.num_batches_tracked", ()


def convolved(name: str, place: int, outputs: int, inputs: int, kernel: int, bias: bool = False) -> Shapes:
    """A convolution in a sequence and the batch norm after it."""
    yield from layer(f"{name}.{place}", outputs, inputs, kernel, kernel, bias=bias)
    yield from batch_norm(f"{name}.{place + 1}", outputs)


def sea_upernet(
    classes: int, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768), channels=512, aux=256, stem="cvst"
) -> Shapes:
    first = widths[0]
    if stem == "cvst":
        for conv, norm, outputs, inputs in ((0, 1, first // 2, 3), (3, 4, first, first // 2)):
            yield from layer(f"backbone.downsample_layers.0.stem.{conv}", outputs, inputs, 3, 3)
            yield from layer(f"backbone.downsample_layers.0.stem.{norm}", outputs)
    else:
        yield from layer("backbone.downsample_layers.0.0", first, 3, 4, 4)
        yield from layer("backbone.downsample_layers.0.1", first)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            yield from layer(f"backbone.downsample_layers.{stage}.0", widths[stage - 1])
            yield from layer(f"backbone.downsample_layers.{stage}.1", width, widths[stage - 1], 2, 2)
        for block in range(depth):
            name = f"backbone.stages.{stage}.{block}"
            yield f"{name}.gamma", (width,)
            yield from layer(f"{name}.dwconv", width, 1, 7, 7)
            yield from layer(f"{name}.norm", width)
            yield from layer(f"{name}.pwconv1", 4 * width, width)
            yield from layer(f"{name}.pwconv2", width, 4 * width)
        yield from layer(f"backbone.norm{stage}", width)

    def module(name: str, outputs: int, inputs: int, kernel: int) -> Shapes:
        yield from layer(f"{name}.conv", outputs, inputs, kernel, kernel, bias=False)
        yield from batch_norm(f"{name}.batch_norm", outputs)

    yield from layer("decode_head.classifier", classes, channels, 1, 1)
    for place in range(4):
        yield from module(f"decode_head.psp_modules.{place}.1", channels, widths[-1], 1)
    yield from module("decode_head.bottleneck", channels, widths[-1] + 4 * channels, 3)
    for place, width in enumerate(widths[:-1]):
        yield from module(f"decode_head.lateral_convs.{place}", channels, width, 1)
        yield from module(f"decode_head.fpn_convs.{place}", channels, channels, 3)
    yield from module("decode_head.fpn_bottleneck", channels, 4 * channels, 3)
    yield from module("auxiliary_head.convs.0", aux, widths[2], 3)
    yield from layer("auxiliary_head.classifier", classes, aux, 1, 1)


def sea_segmenter(classes: int, side=512, width=384, layers=12, decoder_layers=2) -> Shapes:
    def blocks(name: str, count: int) -> Shapes:
        for place in range(count):
            for norm in ("norm1", "norm2"):
                yield from layer(f"{name}.{place}.{norm}", width)
            yield from layer(f"{name}.{place}.attn.qkv", 3 * width, width)
            yield from layer(f"{name}.{place}.attn.proj", width, width)
            yield from layer(f"{name}.{place}.mlp.fc1", 4 * width, width)
            yield from layer(f"{name}.{place}.mlp.fc2", width, 4 * width)

    yield "encoder.cls_token", (1, 1, width)
    yield "encoder.pos_embed", (1, (side // 16) ** 2 + 1, width)
    yield from layer("encoder.patch_embed.proj", width, 3, 16, 16)
    yield from blocks("encoder.blocks", layers)
    yield from layer("encoder.norm", width)
    yield from layer("encoder.head", 1000, width)
    yield "decoder.cls_emb", (1, classes, width)
    yield "decoder.proj_patch", (width, width)
    yield "decoder.proj_classes", (width, width)
    yield from blocks("decoder.blocks", decoder_layers)
    yield from layer("decoder.proj_dec", width, width)
    yield from layer("decoder.decoder_norm", width)
    yield from layer("decoder.mask_norm", classes)


def resnet(layers=50, width=64) -> Shapes:
    """The deep stem and four stages of semseg."""
    for place, outputs, inputs in ((0, width, 3), (3, width, width), (6, 2 * width, width)):
        yield from convolved("layer0", place, outputs, inputs, 3)
    inputs, grown = 2 * width, 4 if layers >= 50 else 1
    for stage, count in enumerate(COUNTS[layers]):
        inner = width * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            kernels = ((inner, inputs, 1), (inner, inner, 3), (4 * inner, inner, 1))
            if grown == 1:
                kernels = ((inner, inputs, 3), (inner, inner, 3))
            for place, (outputs, taken, kernel) in enumerate(kernels, 1):
                yield from layer(f"{name}.conv{place}", outputs, taken, kernel, kernel, bias=False)
                yield from batch_norm(f"{name}.bn{place}", outputs)
            if block == 0 and (stage or inputs != grown * inner):
                yield from convolved(f"{name}.downsample", 0, grown * inner, inputs, 1)
            inputs = grown * inner


def head(name: str, classes: int, inputs: int, middle: int) -> Shapes:
    yield from convolved(name, 0, middle, inputs, 3)
    yield from layer(f"{name}.4", classes, middle, 1, 1)


def pyramid(deep: int) -> Shapes:
    for place in range(4):
        yield from convolved(f"ppm.features.{place}", 1, deep // 4, deep, 1)


def semseg_psp(classes: int, layers=50, width=64) -> Shapes:
    deep = 8 * width * (4 if layers >= 50 else 1)
    yield from resnet(layers, width)
    yield from pyramid(deep)
    yield from head("cls", classes, 2 * deep, max(128, deep // 4))
    yield from head("aux", classes, deep // 2, max(128, deep // 8))


def semseg_psa(classes: int, mask=(59, 59)) -> Shapes:
    yield from resnet()
    for side in ("", "_p"):
        yield from convolved(f"psa.reduce{side}", 0, 512, 2048, 1)
        yield from convolved(f"psa.attention{side}", 0, 512, 512, 1)
        yield from layer(f"psa.attention{side}.3", mask[0] * mask[1], 512, 1, 1, bias=False)
    yield from convolved("psa.proj", 0, 2048, 1024, 1)
    yield from head("cls", classes, 4096, 512)
    yield from head("aux", classes, 1024, 256)


def sea_ddcat(classes: int, layers=50, width=64) -> Shapes:
    deep = 8 * width * (4 if layers >= 50 else 1)
    yield from resnet(layers, width)
    yield from pyramid(deep)
    for name, count in (("cls1", classes), ("mask1", 2), ("cls2", classes)):
        yield from head(name, count, 2 * deep, max(128, deep // 4))
    yield from head("aux_cls1", classes, deep // 2, max(128, deep // 8))


def hrnet(width=48, stem=64, modules=(1, 4, 3), blocks=4, layer1_blocks=4) -> Shapes:
    """The stem and the four stages of HRNetV2."""
    for place, inputs in ((1, 3), (2, stem)):
        yield from layer(f"conv{place}", stem, inputs, 3, 3, bias=False)
        yield from batch_norm(f"bn{place}", stem)
    for block in range(layer1_blocks):
        inputs = 4 * stem if block else stem
        for place, (outputs, taken, kernel) in enumerate(((stem, inputs, 1), (stem, stem, 3), (4 * stem, stem, 1)), 1):
            yield from layer(f"layer1.{block}.conv{place}", outputs, taken, kernel, kernel, bias=False)
            yield from batch_norm(f"layer1.{block}.bn{place}", outputs)
        if not block:
            yield from convolved("layer1.0.downsample", 0, 4 * stem, stem, 1)
    widths = [width * 2**branch for branch in range(4)]
    before = [4 * stem]
    for stage, count in enumerate(modules, 2):
        now = widths[:stage]
        if before[0] != now[0]:
            yield from convolved(f"transition{stage - 1}.0", 0, now[0], before[0], 3)
        yield from convolved(f"transition{stage - 1}.{stage - 1}.0", 0, now[-1], before[-1], 3)
        for module in range(count):
            yield from exchange(f"stage{stage}.{module}", now, blocks)
        before = now


def exchange(name: str, widths: list[int], blocks: int) -> Shapes:
    for branch, width in enumerate(widths):
        for block in range(blocks):
            for place in (1, 2):
                yield from layer(f"{name}.branches.{branch}.{block}.conv{place}", width, width, 3, 3, bias=False)
                yield from batch_norm(f"{name}.branches.{branch}.{block}.bn{place}", width)
    for i, to in enumerate(widths):
        for j, source in enumerate(widths):
            if j > i:
                yield from convolved(f"{name}.fuse_layers.{i}.{j}", 0, to, source, 1)
            for k in range(i - j):
                yield from convolved(f"{name}.fuse_layers.{i}.{j}.{k}", 0, to if k == i - j - 1 else source, source, 3)


def segcertify(classes: int, weighted: bool = True, **sizes) -> Shapes:
    total = 15 * sizes.get("width", 48)
    yield "std", (1, 3, 1, 1)
    for name, shape in hrnet(**sizes):
        yield f"model.{name}", shape
    yield from convolved("model.last_layer", 0, total, total, 1, bias=True)
    yield from layer("model.last_layer.3", classes, total, 1, 1)
    if weighted:
        yield "loss.criterion.weight", (classes,)


def hrnet_ocr(classes: int, width=48, mid=512, key=256) -> Shapes:
    total, ocr = 15 * width, "model.ocr_distri_head"
    for name, shape in hrnet(width):
        yield f"model.{name}", shape
    yield from convolved("model.conv3x3_ocr", 0, mid, total, 3, bias=True)
    context = f"{ocr}.object_context_block"
    inner = [(f"{context}.{name}", place) for name in ("f_pixel", "f_object") for place in (0, 2)]
    for name, place in [*inner, (f"{context}.f_down", 0)]:
        yield from layer(f"{name}.{place}", key, key if place else mid, 1, 1, bias=False)
        yield from batch_norm(f"{name}.{place + 1}.0", key)
    for name, inputs in ((f"{context}.f_up", key), (f"{ocr}.conv_bn_dropout", 2 * mid)):
        yield from layer(f"{name}.0", mid, inputs, 1, 1, bias=False)
        yield from batch_norm(f"{name}.1.0", mid)
    yield from layer("model.cls_head", classes, mid, 1, 1)
    yield from convolved("model.aux_head", 0, total, total, 1, bias=True)
    yield from layer("model.aux_head.3", classes, total, 1, 1)
    yield "loss.criterion.weight", (classes,)


def prefixed(shapes: Shapes, prefix: str = "module.") -> Shapes:
    return ((prefix + name, shape) for name, shape in shapes)


def layout(shapes: Shapes) -> Mapping[str, tuple[int, ...]]:
    return dict(shapes)
