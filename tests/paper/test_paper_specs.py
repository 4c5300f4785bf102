"""Scales, blocks, elements and recipes: errors name file and key, and what is packaged fits together."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from rooms import BLOCK, ELEMENT, RECIPE, SCALE, room

from segradius.core.errors import InputError
from segradius.evaluation.study import Study, variants
from segradius.paper.block import Block, read_blocks
from segradius.paper.claim import claims
from segradius.paper.element import asked_for, read_elements
from segradius.paper.kinds import KINDS
from segradius.paper.plan import parts, with_starts
from segradius.paper.recipe import Recipe, training
from segradius.paper.scale import Scale, chosen
from segradius.paper.spec import names, with_values

SCALES = ("demo", "light", "full")


def changed(whole: Any, path: str, value: Any) -> Any:
    """A copy in which one key, ``a.b``, has another value, or none where that is ``...``."""
    found = copy.deepcopy(whole)
    *above, last = path.split(".")
    inner = found
    for key in above:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return found


def read_all(place: Path) -> None:
    read_blocks(Scale.read("demo", place), place)
    read_elements(place)


@pytest.mark.parametrize(
    ("file", "path", "value", "told"),
    [
        ("scales_demo", "networkz", {}, "unknown key of scales/demo.yaml 'networkz'; did you mean 'networks'?"),
        ("scales_demo", "about", ..., "scales/demo.yaml: about is missing; expected a text"),
        ("scales_demo", "given", "voc", "scales/demo.yaml: given is 'voc'; expected a list of names"),
        ("scales_demo", "data.scenes", 3, "scales/demo.yaml: data.scenes is 3; expected a mapping of options"),
        ("scales_demo", "networks.a-0.model", ..., "scales/demo.yaml: networks.a-0.model is missing; expected a text"),
        ("scales_demo", "networks.a-0.seed", -1, "scales/demo.yaml: networks.a-0.seed is -1; expected a whole number"),
        ("scales_demo", "networks.a-0.data", "x", "scales/demo.yaml: networks.a-0: unknown data 'x'. Known: scenes"),
        ("scales_demo", "networks.a-0.train", "x", "scales/demo.yaml: networks.a-0: unknown recipe 'x'. Known: plain"),
        ("scales_demo", "networks.a-0.start", "a-0", "networks.a-0 has start and no train; expected the recipe"),
        ("blocks_white", "studdy", {}, "unknown key of blocks/white.yaml 'studdy'; did you mean 'study'?"),
        ("blocks_white", "study", ..., "blocks/white.yaml has neither study and compute; expected one of them"),
        ("blocks_white", "compute", "maps", "blocks/white.yaml has both study and compute; expected one of them"),
        ("blocks_white", "study.attaks", {}, "blocks/white.yaml: study: unknown key 'attaks'; did you mean 'attacks'?"),
        ("blocks_white", "study.models", {}, "blocks/white.yaml: study: unknown key 'models'"),
        ("blocks_white", "networks", ..., "blocks/white.yaml: networks is missing; expected which networks"),
        ("blocks_white", "images", {"limit": "$feww"}, "blocks/white.yaml at scale demo: unknown value 'feww'; did"),
        ("blocks_white", "scales", {"ligth": {}}, "unknown scale in blocks/white.yaml 'ligth'. Known: demo"),
        ("elements_table-3", "showz", [], "unknown key of elements/table-3.yaml 'showz'"),
        ("elements_table-3", "blocks", ["whit"], "elements/table-3.yaml: blocks: unknown block 'whit'; did you mean"),
        ("elements_table-3", "blocks", [], "elements/table-3.yaml: blocks is missing; expected names of what is"),
        ("elements_table-3", "shows", [{"kind": "table"}], "elements/table-3.yaml: shows.1.name is missing; expected"),
        ("elements_table-3", "shows", [{"kind": "table", "name": "../x"}], "shows.1.name is '../x'; expected a name"),
    ],
)  # fmt: skip
def test_an_error_names_the_file_and_the_key(tmp_path: Path, file: str, path: str, value: Any, told: str) -> None:
    usual = {"scales_demo": SCALE, "blocks_white": BLOCK, "elements_table-3": ELEMENT}
    place = room(tmp_path, **{file: changed(usual[file], path, value)})
    with pytest.raises(InputError, match=re.escape(told)):
        read_all(place)


def test_a_file_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("unknown scale 'dmo'; did you mean 'demo'? Known: demo")):
        Scale.read("dmo", room(tmp_path))


def test_a_block_at_a_scale_is_the_block_with_the_scale_over_it(tmp_path: Path) -> None:
    own = {
        **BLOCK,
        "images": {"limit": 9, "stride": 2},
        "scales": {"demo": {"images": {"limit": "$few", "stride": None}}},
    }
    place = room(tmp_path, blocks_white=own)
    block = Block.read("white", Scale.read("demo", place), place)
    assert block.images == {"limit": 1}
    assert block.study["budgets"] == {"eps": "l2=1,2"}
    left_out = room(tmp_path, blocks_white={**BLOCK, "scales": {"demo": {"skip": "no time"}}})
    scale = Scale.read("demo", left_out)
    assert parts(Block.read("white", scale, left_out), scale, tmp_path) == ()


def test_a_value_alone_keeps_its_type() -> None:
    assert with_values({"a": "$x", "b": ["l2=$x"]}, {"x": [1, 2.5]}) == {"a": [1, 2.5], "b": ["l2=1,2.5"]}


def network(**other: Any) -> dict[str, Any]:
    return {"family": "a", "role": "plain", "data": "scenes", "model": "demo", **other}


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ({"role": "plain"}, ["a-0", "a-1", "b-1"]),
        ({"role": "plain", "each": {"first": "seed"}}, ["a-0", "b-1"]),
        ({"family": ["b"], "seed": [0, 1]}, ["b-1"]),
        ({"role": "hard", "norm": "l2"}, ["h-0"]),
        ({"labels": ["h-0", "a-1"]}, ["a-1", "h-0"]),
        ({"role": "none"}, []),
    ],
)
def test_networks_are_chosen_by_their_keys(tmp_path: Path, by: dict[str, Any], found: list[str]) -> None:
    networks = {
        "a-0": network(seed=0), "a-1": network(seed=1), "b-1": network(seed=1, family="b"),
        "h-0": network(role="hard", norm="l2", start="a-0", train="plain"),
    }  # fmt: skip
    scale = Scale.read("demo", room(tmp_path, scales_demo={**SCALE, "networks": networks}))
    assert [each.label for each in chosen(scale.networks, by, "it")] == found


def test_a_training_comes_after_the_one_that_it_starts_from(tmp_path: Path) -> None:
    networks = {
        "c": network(train="plain", start="b"), "b": network(train="plain", start="a"), "a": network(train="plain"),
    }  # fmt: skip
    scale = Scale.read("demo", room(tmp_path, scales_demo={**SCALE, "networks": networks}))
    assert [each.label for each in with_starts([scale.networks["c"]], scale)] == ["a", "b", "c"]
    networks["a"]["start"] = "c"
    scale = Scale.read("demo", room(tmp_path, scales_demo={**SCALE, "networks": networks}))
    with pytest.raises(InputError, match="starts from itself: c → b → a"):
        with_starts([scale.networks["c"]], scale)


def test_what_was_not_given_is_told_and_can_be_left_out(tmp_path: Path) -> None:
    it = {
        **SCALE,
        "given": ["voc", "weights"],
        "data": {"voc": {"data": "voc:{voc}"}, "scenes": {"data": "scenes"}},
        "networks": {
            "a": network(data="voc"), "b": network(weights="{weights}/b.safetensors"), "c": network(),
        },
    }  # fmt: skip
    scale = Scale.read("demo", room(tmp_path, scales_demo=it))
    assert scale.lacking == {"voc": "voc", "a": "voc", "b": "weights"}
    given = scale.filled({"voc": "/x"})
    assert (given.data["voc"]["data"], given.lacking) == ("voc:/x", {"b": "weights"})
    assert list(given.without(given.lacking).networks) == ["a", "c"]
    with pytest.raises(InputError, match="unknown name of --given at scale demo 'vocc'; did you mean 'voc'"):
        scale.filled({"vocc": "/x"})


def test_a_recipe_is_what_all_scales_have_with_its_own_over_it(tmp_path: Path) -> None:
    place = room(tmp_path, scales_demo=changed(SCALE, "networks.a-0.train", "plain"))
    scale = Scale.read("demo", place)
    assert training(scale.networks["a-0"], scale, tmp_path / "out", place) == {
        "model": "demo", "data": "scenes:24x32,4", "seed": 0, "epochs": 1, "batch_size": 4,
        "out": str(tmp_path / "out" / "demo" / "networks" / "a-0"),
    }  # fmt: skip
    with pytest.raises(InputError, match=re.escape("recipes/plain.yaml has seed, which the scale gives")):
        Recipe.read("plain", scale, room(tmp_path, recipes_plain=changed(RECIPE, "all.seed", 3)))


def test_elements_go_by_their_aliases_in_the_order_of_the_paper(tmp_path: Path) -> None:
    ten = {**ELEMENT, "aliases": ["figure-21"], "shows": [{"kind": "table", "name": "figure-10"}]}
    two = {**ELEMENT, "shows": [{"kind": "table", "name": "figure-2"}]}
    place = room(tmp_path, **{"elements_figure-10": ten, "elements_figure-2": two})
    elements = read_elements(place)
    assert [each.name for each in asked_for(["figure-21", "figure-2"], elements)] == ["figure-2", "figure-10"]
    assert len(asked_for([], elements)) == 3
    with pytest.raises(InputError, match="unknown element of the paper 'figur-2'; did you mean 'figure-2'"):
        asked_for(["figur-2"], elements)
    twice = room(tmp_path, **{"elements_figure-2": ELEMENT})
    with pytest.raises(InputError, match=re.escape("elements/figure-2.yaml and elements/table-3.yaml: shows table-3")):
        read_elements(twice)


@pytest.mark.parametrize("name", SCALES)
def test_every_packaged_block_is_a_study_at_every_scale(name: str, tmp_path: Path) -> None:
    scale = Scale.read(name)
    for block in read_blocks(scale).values():
        for part in parts(block, scale, tmp_path):
            study = Study.of(part.study, block.file)
            assert study.measurements
            labels = set(variants(part.study, block.file))
            assert {label for each in study.measurements for label in each.attacks} <= labels


def test_every_recipe_is_read_at_every_scale() -> None:
    for scale in map(Scale.read, SCALES):
        used = {each.train for each in scale.networks.values() if each.train}
        assert used <= set(names("recipes"))
        for name in used:
            assert Recipe.read(name, scale).options["epochs"] >= 1


def test_every_packaged_block_belongs_to_an_element_and_claims_to_both() -> None:
    elements = read_elements()
    assert set(names("blocks")) <= {block for each in elements.values() for block in each.blocks}
    known = {name for each in elements.values() for name in (each.name, *each.aliases)}
    assert {name for each in claims() for name in each.elements} <= known
    assert {show.kind for each in elements.values() for show in each.shows} <= set(KINDS)


def test_every_table_and_figure_of_the_paper_is_an_element_or_an_alias() -> None:
    known = {name for each in read_elements().values() for name in (each.name, *each.aliases)}
    wanted = {f"table-{number}" for number in range(1, 6)} | {f"figure-{number}" for number in range(1, 22)}
    assert wanted <= known
