"""Weights in shards: all of them or a line that names what is missing; the digest of a card covers them."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segradius.core.errors import InputError
from segradius.models import convert, load_into, load_model, load_state
from segradius.models.cards import write_card
from segradius.models.sharded import digest_of


def state():
    torch.manual_seed(0)
    return dict(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).state_dict())


def cut(folder, form="safetensors", parts=3):
    """A folder with shards, as transformers names them, and the list."""
    folder.mkdir(exist_ok=True)
    base, suffix = ("model", ".safetensors") if form == "safetensors" else ("pytorch_model", ".bin")
    names, listed = list(state()), {}
    for number in range(parts):
        file = f"{base}-{number + 1:05}-of-{parts:05}{suffix}"
        shard = {name: state()[name] for name in names[number::parts]}
        listed |= dict.fromkeys(shard, file)
        save_file(shard, folder / file) if form == "safetensors" else torch.save(shard, folder / file)
    index = folder / f"{base}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))
    return index


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_all_shards_are_read_from_the_list_or_its_folder(tmp_path, form):
    index = cut(tmp_path / "net", form)
    for place in (index, index.parent, str(index.parent)):
        torch.testing.assert_close(load_state(place), state(), rtol=0, atol=0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    load_into(network, load_state(index), index)
    done = convert(index, tmp_path / "one.safetensors")
    torch.testing.assert_close(load_state(done.target), state(), rtol=0, atol=0)


def test_of_both_forms_safetensors_are_read(tmp_path):
    cut(tmp_path / "net", "bin")
    for path in (tmp_path / "net").glob("*.bin"):
        path.write_bytes(b"not read")
    cut(tmp_path / "net")
    torch.testing.assert_close(load_state(tmp_path / "net"), state(), rtol=0, atol=0)
    (tmp_path / "net" / "model.fp16.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match=r"hold model\.fp16\.safetensors\.index\.json, model\.safetensors\.i"):
        load_state(tmp_path / "net")


def relisted(change):
    def changed(folder):
        index = folder / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        change(content["weight_map"])
        index.write_text(json.dumps(content))

    return changed


def twice(folder):
    index = folder / "model.safetensors.index.json"
    index.write_text(
        index.read_text().replace('"weight_map": {', '"weight_map": {"0.bias": "model-00001-of-00003.safetensors", ')
    )


SECOND = "model-00002-of-00003.safetensors"
FAULTS = {
    "a shard is missing": (
        lambda folder: (folder / SECOND).unlink(),
        rf"1 of 3 are missing: {SECOND}; put",
    ),
    "a shard ends too early": (
        lambda folder: (folder / SECOND).write_bytes(b"x" * 99),
        f"{SECOND}' is text that begins",
    ),
    "a shard is a pointer": (
        lambda folder: (folder / SECOND).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4\n"),
        f"{SECOND}' is a pointer of git-lfs",
    ),
    "a tensor is missing": (
        lambda folder: save_file({}, folder / SECOND),
        f"{SECOND}' lacks .*which model",
    ),
    "a tensor is in two shards": (
        lambda folder: save_file(state(), folder / SECOND),
        f"{SECOND}' and '.*' both hold '|{SECOND}' holds '.*', which .* does not",
    ),
    "a tensor is in no list": (
        relisted(lambda names: names.pop("1.bias")),
        "' holds '.*', which .* does not",
    ),
    "a tensor is listed twice": (twice, "the key '0.bias' stands twice"),
    "a tensor is listed that is nowhere": (relisted(lambda names: names.update(more=SECOND)), f"{SECOND}' lacks more"),
    "a shard elsewhere": (
        relisted(lambda names: names.update(more="../a.safetensors")),
        "expected a file in the same",
    ),
    "a number for a shard": (relisted(lambda names: names.update(more=3)), "expected a file in the same"),
    "nothing is listed": (relisted(dict.clear), "lists no weights"),
    "no list at all": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("[]"),
        "is no list of",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_shards_is_named(tmp_path, fault):
    index, (spoil, said) = cut(tmp_path / "net"), FAULTS[fault]
    spoil(index.parent)
    with pytest.raises(InputError, match=said) as caught:
        load_state(index.parent)
    assert "\n" not in str(caught.value)


class Trap:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_in_a_shard_does_not_run(tmp_path):
    index = cut(tmp_path / "net", "bin")
    torch.save({"0.weight": Trap(tmp_path / "ran")}, index.parent / "pytorch_model-00002-of-00003.bin")
    with pytest.raises(InputError, match=r"00002-of-00003\.bin' is refused: it holds Python objects \(posix\.mkdir\)"):
        load_state(index)
    assert not (tmp_path / "ran").exists()


def test_the_digest_of_a_card_is_that_of_the_list_and_all_shards(tmp_path, monkeypatch):
    index = cut(tmp_path / "net")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(index.parent.iterdir())
    ]
    assert digest_of(index) == digest_of(index.parent) == hashlib.sha256("".join(lines).encode()).hexdigest()
    (tmp_path / "their_other_net.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), "
        "nn.Conv2d(4, 2, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    write_card(tmp_path / "card.yaml", {"model": "their_other_net:net", "weights": f"net/{index.name}"})
    assert load_model("card.yaml", normalisation="none").num_classes == 2
    changed = state()
    shard = index.parent / SECOND
    save_file({name: changed[name] + 1 for name in list(changed)[1::3]}, shard)
    with pytest.raises(InputError, match=r"index\.json' has SHA-256 .*; its card 'card' says"):
        load_model("card.yaml", normalisation="none")


def test_a_folder_of_transformers_with_shards_loads(tmp_path):
    transformers = pytest.importorskip("transformers")
    options = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8], "decoder_hidden_size": 8, "num_labels": 3}
    config = transformers.SegformerConfig(num_attention_heads=[1, 1, 1, 1], **options)
    torch.manual_seed(0)
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path / "net", max_shard_size="10KB")
    assert len(list((tmp_path / "net").glob("model-*.safetensors"))) > 1
    model, images = load_model(f"hf:{tmp_path / 'net'}", normalisation="none"), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images).logits
    torch.testing.assert_close(model.raw_logits(images), expected)
    with pytest.raises(InputError, match=r"116 missing: .* These are names as of transformers: give hf:FOLDER"):
        load_into(network, load_state(tmp_path / "net"))  # which names them otherwise in files
    next((tmp_path / "net").glob("model-*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"cannot load hf:.*No such file.*model-0000\d-of-0000\d\.safetensors"):
        load_model(f"hf:{tmp_path / 'net'}", normalisation="none")
