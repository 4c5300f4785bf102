"""Which files a network is made of: of a module what it imports from its folder, of a card, of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from segradius.core import modules
from segradius.models import code

FILES = {
    "plain_net.py": "import torch, helper\nfrom parts.heads import Head",
    "helper.py": "def late():\n    import lazy_one",
    "lazy_one.py": "import importlib\nimportlib.import_module('by_name')",
    "by_name.py": "import plain_net  # in a circle",
    "unused.py": "",
    "torch.txt": "",
    "parts/__init__.py": "",
    "parts/heads.py": "from . import blocks\nfrom .deep.layer import x\nfrom ..outside import y",
    "parts/blocks.py": "from .missing import nothing",
    "parts/deep/__init__.py": "from .. import shared",
    "parts/deep/layer.py": "this is no Python",
    "parts/shared.py": "",
    "parts/unused.py": "",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_imports_are_followed_within_the_folder_however_deep_and_late(place: Path):
    used = set(FILES) - {"unused.py", "parts/unused.py", "torch.txt"}
    assert set(modules.module_files("plain_net")) == used
    inside = {name for name in used if name.startswith("parts/")}
    assert set(modules.module_files("parts.heads")) == inside
    assert all(path == place / name for name, path in modules.module_files("plain_net").items())


def test_data_beside_the_code_that_it_names_counts_and_what_it_writes_for_people_does_not(place: Path):
    (place / "with_data.py").write_text(
        'SCALE = "scale.json"\nLOG = "run.log"\nOTHER = "absent.npy"\nA = "parts/w.NPY"\n'
    )
    for name in ("scale.json", "run.log", "parts/w.NPY", "unnamed.json"):
        (place / name).touch()
    found = modules.module_files("with_data")
    assert {path.name for path in found.values()} == {"with_data.py", "scale.json", "w.NPY"}


def test_of_an_installed_package_only_its_own_files_count():
    found = modules.module_files("lightning_fabric.utilities.seed")
    assert "lightning_fabric/utilities/seed.py" in found
    assert all(name.startswith("lightning_fabric/") for name in found)


def test_what_has_no_file_has_no_files():
    assert modules.module_files("builtins") == code.module_files("no_such_module") == {}


@pytest.mark.parametrize("spec", ["demo", "pspnet50,num_classes=3", "torchvision:fcn_resnet50,num_classes=2"])
def test_networks_that_come_with_a_library_are_no_files_of_the_user(spec: str):
    assert code.files_of(spec) == {}


def test_a_card_counts_by_what_it_says_of_the_network_alone(place: Path):
    card = place / "card.yaml"

    def digest(text: str) -> str:
        card.write_text(text)
        files = code.files_of("card.yaml")
        assert set(files) == {"card.yaml", *modules.module_files("plain_net")}
        return files["card.yaml"][1]

    plain = digest("model: plain_net:net\n")
    assert digest("# a comment\nmodel: plain_net:net\nname: mine\nlicence: MIT\nsource: x\npaper: y\n") == plain
    others = ["outputs: probabilities", "classes: [a, b]", "normalisation: imagenet", "size: {multiple_of: 8}"]
    others += ["arguments: {k: 1}", "inference: {crop: [8, 8]}"]
    assert len({digest(f"model: plain_net:net\n{other}\n") for other in others} | {plain}) == 1 + len(others)


def test_of_a_folder_of_transformers_the_configuration_counts(tmp_path: Path):
    for name in ("config.json", "preprocessor_config.json", "README.md", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert set(code.files_of(f"hf:{tmp_path}")) == {"config.json", "preprocessor_config.json"}
    assert code.files_of("hf:segformer,num_labels=3") == {}


def test_of_a_hub_the_configuration_in_the_local_cache_counts(tmp_path: Path):
    snapshot = tmp_path / "models--some--net" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--some--net" / "refs").mkdir()
    (tmp_path / "models--some--net" / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text("{}")
    found = code.files_of(f"hf:some/net,cache_dir={tmp_path}")
    assert {name: path for name, (path, _) in found.items()} == {"config.json": snapshot / "config.json"}
    assert code.files_of(f"hf:some/other,cache_dir={tmp_path}") == {}


def test_what_differs_is_named():
    now = {"a.py": (Path("x/a.py"), "1"), "b.py": (Path("x/b.py"), "2"), "c.py": (Path("x/c.py"), "3")}
    assert code.changed_files(now, None) == code.changed_files(now, code.digests(now)) == []
    told = code.changed_files(now, {"a.py": "0", "b.py": "2", "d.py": "4"})
    assert told == ["x/a.py changed", "d.py is no longer part of the model", "x/c.py is new in the model"]
