"""The one grammar: what is written out is read back, whatever it holds, and what is no text of it is named."""

from __future__ import annotations

import keyword

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from segradius.core.errors import InputError
from segradius.core.text import (
    Spec,
    counts,
    from_mapping,
    listed,
    names,
    number,
    options,
    pairs,
    parse_call,
    parse_spec,
    refuse_unknown,
    size,
    split,
    value_of,
)

words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda word: not keyword.iskeyword(word) and isinstance(yaml.safe_load(word), str)
)
scalars = st.integers(-(10**9), 10**9) | st.booleans() | st.none() | words | st.floats(1e-6, 1e6)
values = scalars | st.lists(scalars, max_size=3)


def written(value) -> str:
    """A value as YAML in one line; floats as Python writes them, 1e-05 included."""
    if isinstance(value, list):
        return f"[{', '.join(written(each) for each in value)}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(scalars)
def test_a_value_is_read_as_it_is_written(value):
    assert value_of(written(value)) == value


@given(words, words | st.just(""), st.dictionaries(words, values, max_size=3))
def test_a_spec_is_read_as_it_is_written(name, source, arguments):
    text = ",".join([f"{source}:{name}" if source else name, *(f"{k}={written(v)}" for k, v in arguments.items())])
    plain = {k: v for k, v in arguments.items() if not isinstance(v, list)}
    found = parse_spec(text)
    assert (found.source, found.name, str(found)) == (source, name, f"{source}:{name}" if source else name)
    assert list(found.arguments) == list(arguments)
    assert {k: found.arguments[k] for k in plain} == plain
    assert all(len(found.arguments[k]) == len(v) for k, v in arguments.items() if isinstance(v, list))


@given(words, st.dictionaries(words, scalars, max_size=3))
def test_a_call_is_read_as_it_is_written(name, arguments):
    inside = ";".join(f"{k}={written(v)}" for k, v in arguments.items())
    assert parse_call(f" {name}({inside}) ", "weighting") == (name, arguments)
    if not arguments:
        assert parse_call(name, "weighting") == (name, {})


@given(st.dictionaries(words, st.lists(st.integers(0, 99), min_size=1, max_size=3), max_size=3))
def test_pairs_are_read_from_a_text_as_from_a_mapping(given_):
    text = ",".join(f"{key}={listed(value)}" for key, value in given_.items())
    assert pairs(text) == pairs(given_) == [(key, listed(value)) for key, value in given_.items()]


@given(st.dictionaries(words, scalars, min_size=1, max_size=3))
def test_options_are_read_from_a_text_as_from_a_mapping(given_):
    assert options(",".join(f"{k}={written(v)}" for k, v in given_.items())) == options(given_) == given_


@given(st.integers(-999, 999), st.integers(1, 999))
def test_a_fraction_is_a_number(numerator, denominator):
    assert number("eps", f"{numerator}/{denominator}") == numerator / denominator
    assert value_of(f"{numerator}/{denominator}") == numerator / denominator


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_a_number_as_python_writes_it(value):
    assert number("eps", repr(value)) == value == number("eps", value)


@given(st.lists(words, max_size=4))
def test_names_are_read_from_a_text_as_from_a_list(given_):
    assert names(", ".join(given_)) == names(given_) == given_


@given(st.integers(1, 9999), st.integers(1, 9999), st.sampled_from("x×"))
def test_a_size_is_read_as_it_is_written(height, width, cross):
    assert size(f" {height} {cross} {width} ") == (height, width)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=4))
def test_counts_are_read_from_a_text_as_from_a_list(given_):
    assert counts(listed(given_)) == counts(given_) == given_


@given(st.lists(st.sampled_from(["a", "[1,2]", "{b: 1, c: 2}", "(x,y)", "[[1,2],(3,4)]", ""]), min_size=1))
def test_a_text_is_split_outside_brackets_alone(parts):
    assert split(",".join(parts), ",") == parts


def test_nothing_given_is_nothing():
    assert size(None) is counts(None) is None
    assert options(None) == {}
    assert names("") == pairs("") == []
    assert Spec("", "pgd").arguments == {}


@given(words, words, st.dictionaries(words, scalars, max_size=2))
def test_a_dataclass_is_made_of_its_mapping(source, name, arguments):
    made = from_mapping(Spec, {"source": source, "name": name, "arguments": arguments}, "model key")
    assert made == Spec(source, name, arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_spec(""), "names no network"),
        (lambda: parse_spec("hf:"), "names no network"),
        (lambda: parse_spec("fcn,21"), "'21' is not key=value"),
        (lambda: parse_spec("fcn,a-b=1"), "'a-b=1' is not key=value"),
        (lambda: parse_spec("fcn,a=1,a=2"), "gives 'a' twice"),
        (lambda: parse_spec("fcn,a=[1"), "the value of 'a' is not YAML"),
        (lambda: parse_call("clever(a=1", "weighting"), r"weighting 'clever\(a=1' has no closing bracket"),
        (lambda: parse_call("clever(1)", "weighting"), "'1' is not key=value"),
        (lambda: options("0.9"), "option '0.9' has no name"),
        (lambda: number("eps", "much"), "eps is 'much'; expected a number"),
        (lambda: number("eps", "true"), "eps is 'true'; expected a number"),
        (lambda: number("eps", "1/0"), "eps is '1/0'; expected a number"),
        (lambda: size("240"), "size '240'; expected height x width"),
        (lambda: size("0x3"), "size '0x3'; expected height x width"),
        (lambda: counts("1,0"), "expected whole numbers of queries"),
        (lambda: counts("1,2.5"), "expected whole numbers of queries"),
        (
            lambda: from_mapping(Spec, [1], "model key"),
            "expected a model key and its value, of source, name, arguments",
        ),
        (lambda: from_mapping(Spec, {"source": ""}, "model key"), r"model keys 'source': .*missing.*'name'"),
        (lambda: from_mapping(Spec, {"nam": ""}, "model key"), "unknown model key 'nam'; did you mean 'name'"),
        (lambda: refuse_unknown("option of pgd", ["step"], ["steps"]), "option of pgd 'step'; did you mean 'steps'"),
    ],
)
def test_what_is_no_text_of_the_grammar_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
