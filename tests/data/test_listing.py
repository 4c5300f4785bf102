"""Every file below a folder is used, or named as left out with the reason."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segradius.core.errors import InputError
from segradius.data import counted, open_data
from segradius.data.listing import composed, list_files, told

YAML = "classes: [a, b, c]\n"


@pytest.fixture
def folder(tmp_path, write, photo):
    """A folder to which pairs of files are added by name; opened as a data set with `opened`."""

    class Folder:
        root = tmp_path

        def yaml(self, text):
            (tmp_path / "segradius.yaml").write_text(text)

        def pair(self, name, image="images", mask="masks", ending=".png"):
            write(tmp_path / image / f"{name}{ending}", photo(2, 3), format="PNG")
            write(tmp_path / mask / f"{name}.png", np.array([[0, 1, 2], [2, 1, 0]], np.uint8))

        def opened(self, **options):
            return open_data(f"folder:{tmp_path}", **options)

        def reasons(self):
            left = self.opened().left_out
            return {each.path.relative_to(tmp_path).as_posix(): each.reason for each in left}

    made = Folder()
    made.yaml(YAML)
    made.pair("x")
    return made


@pytest.mark.parametrize(
    "name",
    ["a [1]", "[", "]", "a*b", "what?", "a{1,2}", "!a", "#1", "100%", "a b ", " a", "é", "e\u0301", "日本", "a.b.c",
     "-o", "~", "$HOME", "a;b", "a'b", 'a"b', "a\\b", "a:b", "&", "=1+1", "[/red]", "x" * 200, "trailing.", "x\ty"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["file", "folder"])
def test_any_name_is_found(folder, name, place):
    folder.pair(name if place == "file" else f"{name}/y")
    assert set(folder.opened().ids) == {"x", name if place == "file" else f"{name}/y"}
    assert folder.reasons() == {}
    assert folder.opened()[1].label.tolist() == [[0, 1, 2], [2, 1, 0]]


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(NAMES.filter(lambda name: name not in (".", ".."))))
def test_what_is_listed_and_what_is_left_out_is_all_that_is_there(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    written = set()
    for name in names:
        file = root / "images" / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
        written.add(file)
    try:
        found = list_files(root, "images")
    except InputError as error:
        clash = "would both be the sample" in str(error) and len({composed(name) for name in names}) < len(names)
        if clash:
            return
        raise
    used = {listed.path for listed in found.files.values()}
    left = {each.path for each in found.left_out}
    assert used | left == written
    assert not used & left
    assert all(each.path.name.startswith(".") for each in found.left_out)


def test_what_is_no_pair_is_left_out_with_the_reason(folder, write, photo):
    root = folder.root
    for name in ("images/.ipynb_checkpoints/x-checkpoint.png", "masks/.ipynb_checkpoints/x-checkpoint.png",
                 "images/._x.png", "images/.x.png", "images/__MACOSX/x.png", "masks/alone.png"):  # fmt: skip
        write(root / name, photo(2, 3))
    for name in ("images/Thumbs.db", "images/notes.txt", "masks/x.psd", "masks/x.mat"):
        (root / name).write_bytes(b"")
    os.mkfifo(root / "images" / "pipe.png")
    (root / "images" / "gone.png").symlink_to("nowhere")
    (root / "images" / "turn.png").symlink_to("turn.png")
    (root / "images" / "up").symlink_to("..")
    assert folder.opened().ids == ("x",)
    assert folder.reasons() == {
        "images/.ipynb_checkpoints": "hidden",
        "masks/.ipynb_checkpoints": "hidden",
        "images/._x.png": "hidden",
        "images/.x.png": "hidden",
        "images/__MACOSX": "hidden",
        "images/Thumbs.db": "of a kind that is not read",
        "images/notes.txt": "of a kind that is not read",
        "masks/x.psd": "of a kind that is not read",
        "masks/x.mat": "of a kind that is not read",
        "images/pipe.png": "no regular file",
        "images/gone.png": "link that leads nowhere",
        "images/turn.png": "link that leads nowhere",
        "masks/alone.png": "without an image",
        "images/up": "link to a folder above it",
    }


def test_linked_folders_are_followed_once(folder):
    folder.pair("far", "elsewhere/images/city", "elsewhere/masks/city")
    folder.pair("near/y")
    for kind in ("images", "masks"):
        (folder.root / kind / "city").symlink_to(f"../elsewhere/{kind}/city")
        (folder.root / kind / "again").symlink_to("near")
        (folder.root / kind / "loop").symlink_to(".")
        (folder.root / kind / "near" / "self").symlink_to("../near")
    assert folder.opened().ids == ("city/far", "near/y", "x")
    assert folder.reasons() == {
        "images/again/y.png": "listed already, without a link",
        "images/again/self": "link to a folder above it",
        "images/near/self": "link to a folder above it",
        "images/loop": "link to a folder above it",
        "masks/again/self": "link to a folder above it",
        "masks/near/self": "link to a folder above it",
        "masks/loop": "link to a folder above it",
        "masks/again/y.png": "without an image",
    }


def test_linked_files_are_read_and_masks_may_share_one(folder):
    for kind in ("images", "masks"):
        (folder.root / kind / "y.png").symlink_to("x.png")
    data = folder.opened()
    assert data.ids == ("x", "y")
    assert data[1].label.tolist() == data[0].label.tolist()


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_pairs_are_found_whatever_the_unicode_form(tmp_path, write, photo, forms):
    image, mask = (unicodedata.normalize(form, "Zürich/é") for form in forms)
    write(tmp_path / "bilder ü" / f"{image}.png", photo(2, 3))
    write(tmp_path / "masks" / f"{mask}.png", np.zeros((2, 3), np.uint8))
    text = unicodedata.normalize("NFD", "images: 'bilder ü'")
    (tmp_path / "segradius.yaml").write_text(f"{YAML}{text}\n", encoding="utf-8")
    data = open_data(f"folder:{tmp_path}")
    assert data.ids == (image,)
    assert data[0].id == image
    write(tmp_path / "bilder ü" / f"{unicodedata.normalize('NFC', image)}.png", photo(2, 3))
    write(tmp_path / "bilder ü" / f"{unicodedata.normalize('NFD', image)}.png", photo(2, 3))
    with pytest.raises(InputError, match="would both be the sample"):
        open_data(f"folder:{tmp_path}")


@pytest.mark.parametrize("ending", [".PNG", ".Png", ".JPG", ".TIF", ".jpe", ".jfif", ".GIF", ".pgm"])
def test_endings_in_any_case_and_of_every_kind(folder, ending):
    folder.pair("y", ending=ending)
    assert folder.opened().ids == ("x", "y")
    folder.yaml(YAML + f"images: 'images/*{ending.lower()}'")
    both = ending.lower() == ".png"
    assert folder.opened().ids == (("x", "y") if both else ("y",))
    assert folder.reasons().get("images/x.png") == (None if both else f"not named like images/*{ending.lower()}")


def test_folders_that_look_like_files_or_patterns(folder):
    folder.pair("dir.png/y")
    folder.pair("z", "images [512]", "masks [512]")
    assert folder.opened().ids == ("dir.png/y", "x")
    for images in ("images [512]", "images [512]/*.png", "images [512]/**/*.png", "images \\[512]"):
        folder.yaml(f"{YAML}images: '{images}'\nmasks: masks [512]")
        if "\\" in images:
            with pytest.raises(InputError, match="no images found"):
                folder.opened()
        else:
            assert folder.opened().ids == ("z",)


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("[ab]_*.png", {"a_1", "b_2", "1"}),
        ("?_*.png", {"a_1", "b_2", "c_3"}),
        ("*_1.png", {"a", "[ab]"}),
        ("[ab]_1.png", {"a_1", "[ab]_1"}),
        ("*.png", {"a_1", "b_2", "c_3", "[ab]_1"}),
    ],
)
def test_patterns_with_brackets_match_as_patterns_and_as_names(tmp_path, pattern, ids):
    (tmp_path / "i").mkdir()
    for name in ("a_1", "b_2", "c_3", "[ab]_1"):
        (tmp_path / "i" / f"{name}.png").write_bytes(b"")
    found = list_files(tmp_path, f"i/{pattern}")
    assert set(found.files) == ids
    assert len(found.left_out) == 4 - len(ids)


def test_a_name_that_is_no_text_is_read(folder):
    raw = os.fsencode(folder.root)
    for kind in (b"images", b"masks"):
        os.link(raw + b"/" + kind + b"/x.png", raw + b"/" + kind + b"/caf\xe9.png")
    data = folder.opened()
    assert len(data) == 2
    assert data[0].label.tolist() == data[1].label.tolist()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(folder):
    folder.pair("shut/y")
    (folder.root / "images" / "shut").chmod(0)
    try:
        assert folder.reasons()["images/shut"].startswith("folder that cannot be listed")
    finally:
        (folder.root / "images" / "shut").chmod(0o755)


def test_counts_are_told_in_a_line(folder, write, photo):
    assert counted(folder.opened()) == f"{folder.root.name}: 1 images to read; 0 files left out"
    for number in range(5):
        write(folder.root / "images" / f".{number}.png", photo(2, 3))
    folder.pair("y")
    assert counted(folder.opened(limit=1)) == (
        f"{folder.root.name}: 1 of 2 images to read; 5 files or folders left out: "
        "5 hidden (images/.0.png, images/.1.png, images/.2.png, …)"
    )
    assert told(()) == "0 files left out"


def test_no_images_says_what_was_there_instead(folder):
    (folder.root / "images" / "x.png").unlink()
    (folder.root / "images" / "x.exr").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"no images found \(1 files or folders left out: 1 of a kind that is not read"
    ):
        folder.opened()


def test_benchmarks_say_what_they_leave_out_too(tmp_path, write, photo):
    for kind in ("images", "masks"):
        write(tmp_path / kind / "test" / "x.png", photo(2, 3)[..., 0] % 11)
        write(tmp_path / kind / "test" / ".ipynb_checkpoints" / "x.png", photo(2, 3)[..., 0] % 11)
    (tmp_path / "images" / "test" / "Thumbs.db").write_bytes(b"")
    data = open_data(f"camvid:{tmp_path}")
    assert data.ids == ("x",)
    assert sorted(each.path.name for each in data.left_out) == [".ipynb_checkpoints", ".ipynb_checkpoints", "Thumbs.db"]
