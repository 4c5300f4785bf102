"""Mask and image files of every kind, as bytes, and what each should come to: written here where Pillow cannot."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

CLASSES = ((0, 0, 0), (200, 30, 30), (30, 200, 30))
FLAT = [channel for colour in CLASSES for channel in colour]
EXIF = {o: Image.Exif() for o in range(2, 9)}
for _orientation, _exif in EXIF.items():
    _exif[0x0112] = _orientation


@dataclass(frozen=True)
class Kind:
    """A mask file.

    Args:
        name: In words.
        ending: Of the file.
        content: Its bytes.
        truth: What was stored; None where it cannot come back, so that the file must be refused.
    """

    name: str
    ending: str
    content: bytes
    truth: np.ndarray | None


def png(rows: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes], interlace: bool = False) -> bytes:
    """A PNG of numbers (H, W) or (H, W, C) at any depth, with chunks before the data."""

    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [rows[top::down, left::across] for top, left, down, across in passes]
    data = b"".join(b"\0" + packed(row, bits) for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], bits, colour, 0, 0, int(interlace))
    return png_of(((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")))


def png_of(chunks: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """A PNG of chunks."""
    framed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@cache
def large_png(side: int = 13000) -> bytes:
    """A PNG of 20 KB with ``side`` × ``side`` pixels."""
    squeeze, row = zlib.compressobj(9), bytes(side // 8 + 2)
    data = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    return png_of(((b"IHDR", side.to_bytes(4, "big") * 2 + b"\1\0\0\0\0"), (b"IDAT", data), (b"IEND", b"")))


def packed(row: np.ndarray, bits: int, big: bool = True) -> bytes:
    """Numbers of a row in as many bits each, the first in the highest."""
    flat = row.reshape(-1).astype(np.int64)
    if bits >= 8 and bits % 8 == 0:
        return flat.astype(f"{'>' if big else '<'}i{bits // 8}").tobytes()
    ones = (flat[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
    return np.packbits(ones.reshape(-1)).tobytes()


def tiff(
    rows: np.ndarray, bits: int = 8, *, big: bool = False, pages: int = 1, raw: bytes | None = None, **tags
) -> bytes:
    """A TIFF of numbers (H, W) or (H, W, C), uncompressed unless ``raw`` has other data; tags as t262=2."""
    order = ">" if big else "<"
    height, width, channels = (*rows.shape, 1)[:3]
    data = b"".join(packed(row, bits, big) for row in rows) if raw is None else raw
    entries = {256: width, 257: height, 258: [bits] * channels, 259: 1, 262: 1, 273: 8, 277: channels, 278: height}
    entries |= {279: len(data)} | {int(name[1:]): value for name, value in tags.items()}
    start = 8 + len(data) + len(data) % 2
    out = (b"MM\0*" if big else b"II*\0") + struct.pack(order + "I", start) + data + b"\0" * (len(data) % 2)
    for page in range(pages):
        directory, beyond = b"", b""
        size = 2 + 12 * len(entries) + 4
        for tag, value in sorted(entries.items()):
            kind, body = field(value, order)
            count = len(body) // {2: 1, 3: 2, 4: 4}[kind]
            if len(body) > 4:
                body, beyond = (
                    struct.pack(order + "I", start + size + len(beyond)),
                    beyond + body + b"\0" * (len(body) % 2),
                )
            directory += struct.pack(order + "HHI", tag, kind, count) + body.ljust(4, b"\0")
        after = start + size + len(beyond)
        out += struct.pack(order + "H", len(entries)) + directory
        out += struct.pack(order + "I", after if page + 1 < pages else 0) + beyond
        start = after
    return out


def field(value, order: str) -> tuple[int, bytes]:
    """Type and bytes of a TIFF field."""
    if isinstance(value, str):
        return 2, value.encode() + b"\0"
    values = value if isinstance(value, list) else [value]
    wide = max(values) > 65535
    return (
        (4, struct.pack(f"{order}{len(values)}I", *values))
        if wide
        else (
            3,
            struct.pack(f"{order}{len(values)}H", *values),
        )
    )


def bmp(rows: np.ndarray, bits: int, palette: list[tuple[int, int, int]]) -> bytes:
    """A BMP with a palette."""
    stride = (rows.shape[1] * bits + 31) // 32 * 4
    data = b"".join(packed(row, bits).ljust(stride, b"\0") for row in rows[::-1])
    colours = b"".join(bytes((b, g, r, 0)) for r, g, b in palette)
    offset = 54 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, rows.shape[1], rows.shape[0], 1, bits, 0, len(data), 0, 0, len(palette), 0)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + header + colours + data


def saved(image: Image.Image, kind: str, **options) -> bytes:
    """What Pillow writes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def indexed(mask: np.ndarray, palette: list[int] = FLAT) -> Image.Image:
    image = Image.fromarray(mask).copy()
    image.putpalette(palette)
    return image


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def masks(mask: np.ndarray) -> Iterator[Kind]:
    """Every kind of file for a mask (H, W) of the numbers 0 to 2, of which not all need be there."""
    yield from pngs(mask)
    yield from tiffs(mask)
    yield from others(mask)


def pngs(mask: np.ndarray) -> Iterator[Kind]:
    plte = (b"PLTE", bytes(FLAT))
    one = np.minimum(mask, 1)
    for interlace in (False, True):
        for bits in (1, 2, 4, 8, 16):
            numbers = one if bits == 1 else mask
            yield Kind(f"PNG grey {bits} {interlace}", ".png", png(numbers, bits, 0, interlace=interlace), numbers)
            if bits < 16:
                content = png(numbers, bits, 3, plte, interlace=interlace)
                yield Kind(f"PNG palette {bits} {interlace}", ".png", content, numbers)
    grey3 = np.stack([mask] * 3, -1)
    yield Kind("PNG RGB of equal channels", ".png", png(grey3, 8, 2), mask)
    yield Kind("PNG RGB of colours, no palette", ".png", png(np.array(CLASSES)[mask], 8, 2), None)
    yield Kind("PNG RGB 48 bits", ".png", png(grey3, 16, 2), None)
    yield Kind("PNG RGBA 64 bits", ".png", png(np.dstack([grey3, np.full(mask.shape, 65535)]), 16, 6), None)
    for value, truth in ((255, mask), (254, None), (0, None)):
        alpha = np.full(mask.shape, value)
        yield Kind(f"PNG LA alpha {value}", ".png", png(np.dstack([mask, alpha]), 8, 4), truth)
        yield Kind(f"PNG RGBA alpha {value}", ".png", png(np.dstack([grey3, alpha]), 8, 6), truth)
    spot = np.full(mask.shape, 255)
    spot[-1, -1] = 7
    yield Kind("PNG LA alpha of one pixel", ".png", png(np.dstack([mask, spot]), 8, 4), None)
    extras = {
        "gAMA": (b"gAMA", struct.pack(">I", 100000)),
        "sRGB": (b"sRGB", b"\0"),
        "tRNS grey": (b"tRNS", b"\0\0"),
        "eXIf": (b"eXIf", EXIF[2].tobytes()[6:]),
    }
    for name, chunk in extras.items():
        truth = mask[:, ::-1] if name == "eXIf" else mask
        yield Kind(f"PNG with {name}", ".png", png(mask, 8, 0, chunk), truth)
    yield Kind("PNG palette with tRNS", ".png", png(mask, 8, 3, plte, (b"tRNS", b"\0\x80")), mask)
    yield Kind(
        "PNG palette of the greys 0, 2, 1", ".png", png(mask, 8, 3, (b"PLTE", bytes([0] * 3 + [2] * 3 + [1] * 3))), None
    )
    frames = [Image.fromarray(mask), Image.fromarray(mask + np.uint8(1))]
    yield Kind("PNG of two frames", ".png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), None)
    yield Kind("PNG named .tif", ".tif", png(mask, 8, 0), mask)
    yield Kind("PNG named .PNG", ".PNG", png(mask, 8, 0), mask)


def tiffs(mask: np.ndarray) -> Iterator[Kind]:
    one = np.minimum(mask, 1)
    for big in (False, True):
        for bits in (1, 2, 4, 8, 16):
            numbers = one if bits == 1 else mask
            name = f"TIFF {'big' if big else 'little'}-endian {bits}"
            yield Kind(name, ".tif", tiff(numbers, bits, big=big), numbers)
            yield Kind(f"{name} 0 is white", ".tif", tiff(numbers, bits, big=big, t262=0), None)
            zipped = zlib.compress(b"".join(packed(row, bits, big) for row in numbers))
            yield Kind(f"{name} deflate", ".tif", tiff(numbers, bits, big=big, raw=zipped, t259=8), numbers)
            yield Kind(f"{name} two pages", ".tif", tiff(numbers, bits, big=big, pages=2), None)
        for bits, sample in ((16, 2), (32, 2), (32, 3)):
            numbers = mask.astype(np.float32).view(np.int32) if sample == 3 else mask
            yield Kind(f"TIFF {big} {bits} format {sample}", ".tif", tiff(numbers, bits, big=big, t339=sample), mask)
            zipped = zlib.compress(b"".join(packed(row, bits, big) for row in numbers))
            content = tiff(numbers, bits, big=big, raw=zipped, t259=8, t339=sample)
            yield Kind(f"TIFF {big} {bits} format {sample} deflate", ".tif", content, None if big else mask)
    yield Kind("TIFF 32 unsigned", ".tif", tiff(mask, 32), mask)
    yield Kind("TIFF 8 signed", ".tif", tiff(mask, 8, t339=2), None)
    yield Kind("TIFF 64", ".tif", tiff(mask, 64), None)
    halves = (mask + np.float32(0.5)).view(np.int32)
    yield Kind("TIFF float of halves", ".tif", tiff(halves, 32, t339=3), None)
    for bits, numbers in ((1, one), (2, mask), (4, mask), (8, mask)):
        turned = bytes(int(f"{byte:08b}"[::-1], 2) for row in numbers for byte in packed(row, bits))
        yield Kind(f"TIFF bits in reverse {bits}", ".tif", tiff(numbers, bits, raw=turned, t266=2), numbers)
    for orientation in range(2, 9):
        turned = np.asarray(Image.fromarray(mask).transpose(TURNS[orientation]))
        yield Kind(f"TIFF orientation {orientation}", ".tif", tiff(mask, 8, t274=orientation), turned)
        yield Kind(
            f"PNG orientation {orientation}",
            ".png",
            saved(Image.fromarray(mask), "PNG", exif=EXIF[orientation]),
            turned,
        )
    colours = np.array(CLASSES)[mask]
    grey3, grey4 = np.stack([mask] * 3, -1), np.stack([mask] * 4, -1)
    yield Kind("TIFF RGB of colours, no palette", ".tif", tiff(colours, 8, t262=2), None)
    yield Kind("TIFF RGB of equal channels", ".tif", tiff(grey3, 8, t262=2), mask)
    planes = np.concatenate([mask] * 3).tobytes()
    starts = [8 + i * mask.size for i in range(3)]
    content = tiff(grey3, 8, raw=planes, t262=2, t284=2, t273=starts, t279=[mask.size] * 3)
    yield Kind("TIFF RGB in planes", ".tif", content, mask)
    yield Kind("TIFF RGB 48 bits", ".tif", tiff(grey3, 16, t262=2), None)
    yield Kind("TIFF RGB and a fourth channel", ".tif", tiff(grey4, 8, t262=2, t338=0), None)
    yield Kind("TIFF grey and a second channel", ".tif", tiff(np.stack([mask] * 2, -1), 8, t338=0), None)
    yield Kind("TIFF of five channels", ".tif", tiff(np.stack([mask] * 5, -1), 8, t338=[0] * 4), None)
    for name, photometric, values in (("CMYK", 5, grey4), ("YCbCr", 6, grey3), ("CIELAB", 8, grey3)):
        yield Kind(f"TIFF {name}", ".tif", tiff(values, 8, t262=photometric), None)
    for images in (1, 3):
        text = f"ImageJ=1.53\nimages={images}\nslices={images}"
        yield Kind(f"TIFF of ImageJ, {images}", ".tif", tiff(mask, 8, t270=text), mask if images == 1 else None)
        text = f'{{"shape": [{images}, {mask.shape[0]}, {mask.shape[1]}]}}'
        yield Kind(f"TIFF of tifffile, {images}", ".tif", tiff(mask, 8, t270=text), mask if images == 1 else None)
    runs = b"".join(bytes([len(row) - 1]) + row.tobytes() for row in np.diff(mask, axis=1, prepend=0).astype(np.uint8))
    yield Kind("TIFF packbits with a predictor", ".tif", tiff(mask, 8, raw=runs, t259=32773, t317=2), None)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"):
        yield Kind(f"TIFF {compression}", ".tiff", saved(Image.fromarray(mask), "TIFF", compression=compression), mask)
    yield Kind("TIFF palette", ".tif", saved(indexed(mask), "TIFF"), mask)
    yield Kind("TIFF JPEG", ".tif", saved(Image.fromarray(mask), "TIFF", compression="jpeg"), None)


def others(mask: np.ndarray) -> Iterator[Kind]:
    grey, one, height, width = Image.fromarray(mask), np.minimum(mask, 1), *mask.shape
    for bits in (1, 4, 8):
        numbers = one if bits == 1 else mask
        yield Kind(f"BMP palette {bits}", ".bmp", bmp(numbers, bits, list(CLASSES)[: 2**bits]), numbers)
    yield Kind("BMP white and black", ".bmp", bmp(one, 1, [(255,) * 3, (0,) * 3]), one)
    yield Kind("BMP 4 with all greys", ".bmp", bmp(mask, 4, [(i,) * 3 for i in range(16)]), None)
    yield Kind("BMP 8 of two greys", ".bmp", bmp(one, 8, [(0,) * 3, (255,) * 3]), None)
    yield Kind("BMP grey", ".bmp", saved(grey, "BMP"), mask)
    yield Kind("BMP RGB", ".bmp", saved(grey.convert("RGB"), "BMP"), mask)
    yield Kind("GIF grey", ".gif", saved(grey, "GIF"), None)
    yield Kind("GIF palette", ".gif", saved(indexed(mask), "GIF"), None)
    yield Kind("WebP lossless", ".webp", saved(grey.convert("RGB"), "WEBP", lossless=True), mask)
    yield Kind("WebP lossless with alpha", ".webp", saved(grey.convert("RGBA"), "WEBP", lossless=True), mask)
    yield Kind("WebP lossy", ".webp", saved(grey.convert("RGB"), "WEBP", quality=100), None)
    two = [grey.convert("RGB"), indexed(mask).convert("RGB")]
    yield Kind(
        "WebP of two frames", ".webp", saved(two[0], "WEBP", save_all=True, append_images=two[1:], lossless=True), None
    )
    for mode in ("L", "RGB", "CMYK"):
        yield Kind(f"JPEG {mode}", ".jpg", saved(grey.convert(mode), "JPEG", quality=100), None)
    yield Kind("JPEG named .png", ".png", saved(grey, "JPEG", quality=100), None)
    for largest in (2, 3, 100, 255, 300, 65535):
        body = mask.astype(">u2" if largest > 255 else np.uint8).tobytes()
        yield Kind(f"PGM up to {largest}", ".pgm", f"P5 {width} {height} {largest}\n".encode() + body, mask)
        text = " ".join(map(str, mask.ravel())).encode()
        yield Kind(f"PGM in letters up to {largest}", ".pgm", f"P2 {width} {height} {largest}\n".encode() + text, mask)
    yield Kind("two PGMs in one", ".pgm", 2 * (f"P5 {width} {height} 255\n".encode() + mask.tobytes()), None)
    yield Kind("PBM", ".pbm", f"P4 {width} {height}\n".encode() + b"".join(packed(row, 1) for row in one), None)
    yield Kind(
        "PBM in letters", ".pbm", f"P1 {width} {height}\n".encode() + " ".join(map(str, one.ravel())).encode(), None
    )
    yield Kind("PPM", ".ppm", f"P6 {width} {height} 255\n".encode() + np.stack([mask] * 3, -1).tobytes(), mask)
    yield Kind("PPM up to 3", ".ppm", f"P6 {width} {height} 3\n".encode() + np.stack([mask] * 3, -1).tobytes(), None)
    for kind in ("u1", "<u2", ">i4", "i8", "f4", ">f8", "?"):
        yield Kind(f"NPY {kind}", ".npy", array(mask.astype(kind)), one if kind == "?" else mask)
    yield Kind("NPY in columns", ".npy", array(np.asfortranarray(mask)), mask)
    for name, values in (
        ("3-D", mask[None]),
        ("complex", mask * 1j),
        ("text", mask.astype("U1")),
        ("halves", mask + 0.5),
    ):
        yield Kind(f"NPY {name}", ".npy", array(values), None)
    yield Kind("NPY of objects", ".npy", array(mask.astype(object)), None)
    yield Kind("TGA", ".png", saved(grey, "TGA"), None)
    yield Kind("JPEG 2000", ".png", saved(grey, "JPEG2000"), None)
    yield Kind("Git LFS", ".png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", None)
    yield Kind("web page", ".png", b"<!DOCTYPE html><html></html>", None)
    yield Kind("nothing", ".png", b"", None)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
