from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.core.errors import InputError
from segradius.core.safe_yaml import MAX_BYTES, MAX_DEPTH, from_yaml, read_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab: -#'\"\n", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=10,
)


def aliases(levels: int, width: int) -> str:
    lines = ["l0: &l0 [x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@settings(max_examples=60, deadline=None)
@given(PLAIN)
def test_what_a_person_writes_is_read_as_by_pyyaml(value):
    assert from_yaml(yaml.safe_dump(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (aliases(9, 9), "more than 200000 values, as its aliases repeat them"),
        ("[" * 5000 + "]" * 5000, "more than 64 deep, in line 1"),
        ("\n".join(" " * i + f"a{i}:" for i in range(100)), "more than 64 deep"),
        ("- " * 3000 + "x", "more than 64 deep"),
        ("{a: " * 2000 + "1" + "}" * 2000, "more than 64 deep"),
        ("a: &a [*a]", "contains itself, in line 1"),
        ("a: &a {b: *a}", "contains itself"),
        ("x" * (MAX_BYTES + 1), "expected at most 1048576"),
        ("a: 1\nb: 2\na: 3", "the key 'a' twice, in lines 1 and 3"),
        ("[{a: 1, a: 1}]", "the key 'a' twice"),
        ("a: [1", "no valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "no valid YAML"),
        ("a: 2026-13-45", "no valid YAML"),
        ("a: !!int x", "no valid YAML"),
        ("? [a, b]\n: 1", "no valid YAML"),
        ("--- 1\n--- 2", "no valid YAML"),
        ("\0", "no valid YAML"),
    ],
)
def test_what_only_a_machine_writes_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        from_yaml(text, "the plan p.yaml")
    told = str(caught.value)
    assert told.startswith("the plan p.yaml ")
    assert "\n" not in told
    assert len(told) < 500


def test_aliases_merge_keys_and_depth_within_bounds_are_read():
    assert from_yaml("base: &b {a: 1}\nmine: {<<: *b, c: 2}")["mine"] == {"a": 1, "c": 2}
    assert from_yaml("- &x [1, 2]\n- *x") == [[1, 2], [1, 2]]
    deep = from_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH - 1):
        (deep,) = deep
    assert deep == []
    assert from_yaml("") is None
    assert from_yaml("1: a\n'1': b") == {1: "a", "1": "b"}


def test_files_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "p.yaml"
    with pytest.raises(InputError, match=r"the plan .*p\.yaml cannot be read: No such file"):
        read_yaml(file, "the plan")
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path, "the plan")
    file.write_bytes(b"a: \xff")
    with pytest.raises(InputError, match="it is not UTF-8"):
        read_yaml(file)
    file.write_bytes(b"# " + b"x" * MAX_BYTES)
    with pytest.raises(InputError, match="larger than 1048576 bytes"):
        read_yaml(file)
    file.write_bytes("\ufeffa: é".encode())
    assert read_yaml(file) == {"a": "é"}
