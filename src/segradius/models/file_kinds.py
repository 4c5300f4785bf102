"""What a file is by its first bytes, whatever its name says, and what to do with one that holds no weights."""

from __future__ import annotations

import json
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

HEAD = 4096
SHOWN = 3
AGAIN = "download it again, and compare its size with what the source says"
LINK = "the address gave a page about the file: use the link of the file itself"
UNPACK = "unpack it and give the file inside"
STATE = "load it where it was made and save its weights with torch.save(network.state_dict(), FILE)"
#: Pickles in a file of ``torch.save`` before PyTorch 1.6, and the number that begins it, as they have it.
LEGACY_PICKLES = 5
LEGACY = (b"l\xfc\x9cF\xf9 j\xa8P\x19", b"119547037146038801333356")
#: What stands before the first of them, as ``torch.save`` writes it unless told otherwise.
PROTOCOL_2 = b"\x80\x02\x8a\n"
SHORTEST = 8
#: Of a safetensors file, in bytes; a text's first eight bytes are a larger number.
LONGEST_HEADER = 100_000_000
#: What becomes of the parts of a DeepSpeed checkpoint.
DEEPSPEED = "make one file of all of it with the zero_to_fp32.py that is in its folder, and give that"
#: What to do with a network of another framework, but for the name of what exports it.
ELSEWHERE = "this library runs PyTorch networks: export it to ONNX there ({}) and give --target onnx:FILE"
JAX = "this library runs PyTorch networks: load it in transformers with from_flax=True and save it again, or give ONNX"
#: What a pickle of PaddlePaddle ends with, and how far from its end that may begin.
PADDLE, TAIL = b"StructuredToParameterName@@", 2**20
#: Keys of ONNX's outermost message that may follow its version.
ONNX_FIELDS = b"\x12\x1a\x22\x28\x32\x3a\x42"
#: First bytes, where they begin, what such a file is, and what to do.
SIGNATURES: Sequence[tuple[bytes, int, str, str]] = (
    (b"version https://git-lfs", 0, "a pointer of git-lfs; the file itself was not fetched", "run git lfs pull there"),
    (b"version https://hawser", 0, "a pointer of git-lfs; the file itself was not fetched", "run git lfs pull there"),
    (b"/annex/objects/", 0, "a pointer of git-annex; the file itself was not fetched", "run git annex get there"),
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file, as Keras writes", ELSEWHERE.format("tf2onnx")),
    (b"\x93NUMPY", 0, "a NumPy array", STATE),
    (b"GGUF", 0, "a GGUF file", "give the PyTorch or safetensors weights that it was made of"),
    (b"TFL3", 4, "a TensorFlow Lite model", "it is asked, not loaded: give it as --target tflite:FILE"),
    (b"MATLAB 5.0", 0, "a MATLAB file", STATE),
    (b"%PDF", 0, "a PDF document", LINK),
    (b"\x89PNG", 0, "a PNG image", "give the file of weights"),
    (b"\xff\xd8\xff", 0, "a JPEG image", "give the file of weights"),
    (b"GIF8", 0, "a GIF image", "give the file of weights"),
    (b"II*\x00", 0, "a TIFF image", "give the file of weights"),
    (b"MM\x00*", 0, "a TIFF image", "give the file of weights"),
    (b"SQLite format 3", 0, "an SQLite database", "give the file of weights"),
    (b"\x7fELF", 0, "a program", "give the file of weights"),
    (b"\x1f\x8b", 0, "a gzip archive", UNPACK),
    (b"BZh", 0, "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\x00", 0, "an xz archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", 0, "a Zstandard archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7z archive", UNPACK),
    (b"Rar!", 0, "a RAR archive", UNPACK),
)


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Args:
        what: In words, with an article.
        advice: What to do; empty for a file that can be read as weights.
    """

    what: str
    advice: str = ""


SAFETENSORS = FileKind("a safetensors file")
#: Written by ``torch.save``; it may hold anything.
PYTORCH = FileKind("a PyTorch checkpoint")
ONNX = FileKind("an ONNX model", "it is asked, not loaded: give it as --target onnx:FILE")
TORCHSCRIPT = FileKind("a TorchScript program", "it is a network with its weights: give it as --model torchscript:FILE")
INDEX = FileKind("a list of weight files in JSON", "give it as --weights FILE, with its shards beside it")
EXPORTED = FileKind("a program of torch.export", "it is a network with its weights: give it as --model pt2:FILE")


def kind_of(path: Path) -> FileKind | None:
    r"""What a file is; nothing in it is run or unpacked.

    Args:
        path: An existing file.

    Returns:
        `SAFETENSORS`, `PYTORCH`, or what else it is; None for bytes that are nothing known.

    Raises:
        OSError: It cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     pointer = Path(folder) / "net.pth"
        ...     _ = pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:…\nsize 9\n")
        ...     print(kind_of(pointer).what)
        a pointer of git-lfs; the file itself was not fetched
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    size = path.stat().st_size
    if size < SHORTEST:
        what = "empty" if not size else "too short for a checkpoint"
        return FileKind(f"{what} ({size} bytes), as a truncated download is", AGAIN)
    for known in (_signed(head), _zipped(path, head), _tarred(path, head), _safetensors(head, size)):
        if known is not None:
            return known
    return _pickled(head, path) or _tensorflow(path) or _onnx(head) or _msgpack(head) or _text(head, path)


def folder_kind(path: Path) -> FileKind:
    """What a folder that was given as weights is, by the names in it; an empty word where they tell nothing."""
    names = {each.name for each in path.iterdir()}
    ends = {PurePosixPath(name).suffix for name in names}
    if ".metadata" in names or ".distcp" in ends:
        made = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pth"
        return FileKind("a checkpoint of torch.distributed, as of FSDP", f"make one file of it: {made}")
    if "zero_to_fp32.py" in names or any(name.startswith(("mp_rank_", "zero_pp_rank_")) for name in names):
        return FileKind("a DeepSpeed checkpoint", DEEPSPEED)
    if "saved_model.pb" in names:
        return FileKind("a SavedModel of TensorFlow", ELSEWHERE.format("tf2onnx"))
    if "_CHECKPOINT_METADATA" in names or ".orbax-checkpoint" in ends or "_METADATA" in names:
        return FileKind("a checkpoint of JAX", JAX)
    if ".pdiparams" in ends or ".pdmodel" in ends:
        return FileKind("a PaddlePaddle model", ELSEWHERE.format("paddle2onnx"))
    files = sorted(name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt")))
    found = f"the file in it, {path / files[0]}" if len(files) == 1 else "one of the files in it"
    return FileKind("", f"give {found if files else 'a file, .safetensors or a checkpoint'}")


def is_damaged(path: Path) -> bool:
    """Whether a PyTorch checkpoint's pickles end too early or are not what was written; nothing in them is run."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
                pickle = archive.read(name)  # compares its checksum
            return [code.name for code, _, _ in pickletools.genops(pickle)][-1:] != ["STOP"]
        with path.open("rb") as file:
            for _ in range(LEGACY_PICKLES):
                for _ in pickletools.genops(file):
                    pass
    except Exception:  # whatever damaged bytes make of the readers
        return True
    return False


def _signed(head: bytes) -> FileKind | None:
    found = (FileKind(what, advice) for begin, at, what, advice in SIGNATURES if head[at:].startswith(begin))
    return next(found, None)


def _zipped(path: Path, head: bytes) -> FileKind | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return FileKind("a PyTorch checkpoint or ZIP archive that ends too early (truncated or corrupt)", AGAIN)
    inner = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in names}
    ends = {PurePosixPath(name).name for name in names}
    if any(name.startswith("code/") for name in inner) or "constants.pkl" in inner:
        return TORCHSCRIPT
    if "data.pkl" in inner | set(names):
        return PYTORCH
    if {"archive_format", "serialized_exported_program.json"} & ends:
        return EXPORTED
    if {"model.weights.h5", "metadata.json"} & ends:
        return FileKind("a Keras archive", ELSEWHERE.format("model.export(FILE, format='onnx')"))
    if names and all(name.endswith(".npy") for name in names):
        return FileKind("an archive of NumPy arrays", STATE)
    return FileKind(f"a ZIP archive of {_listed(names)}", UNPACK)


def _tarred(path: Path, head: bytes) -> FileKind | None:
    if head[257:262] != b"ustar":
        return None
    try:
        with tarfile.open(path, "r:") as archive:
            names = [member.name for member, _ in zip(archive, range(SHOWN + 1), strict=False)]
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return FileKind("a tar archive that ends too early (truncated or corrupt)", AGAIN)
    return FileKind(f"a tar archive of {_listed(names)}", UNPACK)


def _safetensors(head: bytes, size: int) -> FileKind | None:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > LONGEST_HEADER:
        return None
    if length + 8 > size:
        return FileKind("a safetensors file that ends too early (truncated)", AGAIN)
    return SAFETENSORS


def _tensorflow(path: Path) -> FileKind | None:
    # A protocol buffer has no signature, and its first fields are those that ONNX has.
    named = path.suffix == ".pb"
    return FileKind("a graph of TensorFlow", ELSEWHERE.format("tf2onnx")) if named else None


def _msgpack(head: bytes) -> FileKind | None:
    """Of a map whose first key is a short name, as Flax writes its parameters."""
    size = head[1] & 0x1F
    key = head[2 : 2 + size]
    if head[0] & 0xF0 == 0x80 and head[1] & 0xE0 == 0xA0 and size and re.fullmatch(rb"[\w.\- ]+", key):
        return FileKind("a file of msgpack, as Flax (JAX) writes", JAX)
    return None


def _pickled(head: bytes, path: Path) -> FileKind | None:
    if any(number in head[:64] for number in LEGACY) or (PROTOCOL_2 + LEGACY[0]).startswith(head):
        return PYTORCH
    seen = _opcodes(head)
    # Without the mark of protocol 2 a pickle is text, and what asks for code in it is a name of a module and its thing.
    asks = any(name == "GLOBAL" and re.fullmatch(r"[\w.]+ [\w.]+", str(argument)) for name, argument in seen)
    if seen and (seen[0][0] == "PROTO" or (asks and seen[-1][0] == "STOP")):
        if PADDLE in _tail(path):
            return FileKind("weights of PaddlePaddle", ELSEWHERE.format("paddle2onnx"))
        return FileKind("a Python pickle that torch.save has not written", STATE)
    return None


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read()


def _opcodes(head: bytes) -> list[tuple[str, object]]:
    """Opcodes and their arguments before the first that is none; nothing is run."""
    found: list[tuple[str, object]] = []
    try:
        for code, argument, _ in pickletools.genops(head):
            found.append((code.name, argument))
    except Exception:  # whatever a pickle that is longer than the head, or no pickle, makes of the reader
        return found
    return found


def _onnx(head: bytes) -> FileKind | None:
    # A protocol buffer has no signature: field 1, the version, as a small number, then a field that ONNX has.
    if len(head) > 2 and head[0] == 8 and 0 < head[1] < 32 and head[2] in ONNX_FIELDS:
        return ONNX
    return None


def _text(head: bytes, path: Path) -> FileKind | None:
    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < HEAD else "ignore").strip()
    except UnicodeDecodeError:
        return None
    if not text or "\x00" in text:
        return None
    if text[:200].lower().startswith(("<!doctype html", "<html", "<head", "<body", "<!--")):
        return FileKind("an HTML page", LINK)
    if text.startswith("<"):
        return FileKind("an XML document, as a server's error is", LINK)
    if text[0] in "{[" and _is_json(path):
        listed = '"weight_map"' in text or path.name.endswith(".index.json")
        return INDEX if listed else FileKind("a JSON document, as a server's error is", LINK)
    return FileKind(f"text that begins with {text.splitlines()[0][:40]!r}", "give the file of weights")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes()[: 2**20])
    except (ValueError, RecursionError):
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN]) or "nothing"
    return shown + (", …" if len(names) > SHOWN else "")
