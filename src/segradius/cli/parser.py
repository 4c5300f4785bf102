"""A parser that is made from the signatures and docstrings of functions, the commands, and calling one of them."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import is_dataclass
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter, get_loader, set_loader
from yaml import YAMLError

from segradius import __version__
from segradius.core import text
from segradius.core.declared import expected, fits, kinds_of, taken, takes_number
from segradius.core.errors import InputError, must, shown
from segradius.core.escapes import visible
from segradius.core.safe_yaml import from_yaml
from segradius.core.secrets import redacted

T = TypeVar("T")

_LOADED: Callable[[str], Any] = get_loader("yaml")

REPEATABLE = ("--attack", "--norm", "--eps", "--options", "--given")


def reads_bounded() -> None:
    """Have jsonargparse read YAML as everything here does: bounded, and refused in one wording."""
    set_loader("yaml", _bounded, (YAMLError, InputError))


def _bounded(text: str) -> Any:
    """What jsonargparse makes of YAML, in a --config file or a value, unless `from_yaml` refuses it."""
    from_yaml(text, "the YAML")
    return _LOADED(text)


class Parser(ArgumentParser):
    """A parser whose errors are one line each, in the wording of all others.

    Attributes:
        kinds: What each argument may be, by its name.
        commands: All that there are, by name.
    """

    kinds: Mapping[str, Any] = MappingProxyType({})
    commands: Mapping[str, Callable[..., int]] = MappingProxyType({})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # argparse's own knows no list, as -200,300 of a range

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong, and exit with status 2."""
        place, value = re.match(r'Parser key "(\w+)":', message), re.search(r"(?:Given|Got) value: (.*)", message, re.S)
        if place and value and place[1] in self.kinds:
            message = f"{place[1]} is {shown(value[1])}; expected {expected(self.kinds[place[1]])}"
        else:
            unknown = re.match(r"[Uu]nrecognized arguments: (--[\w-]+)", message)
            message += self._instead_of(unknown[1]) if unknown else ""
            command = self.prog.replace("[options] ", "")
            message = f"{' '.join(message.split())}; see {command} --help"
        print(f"segradius: error: {visible(redacted(message))}", file=sys.stderr)
        raise SystemExit(2)

    def _instead_of(self, unknown: str) -> str:
        """Which other commands have an option that this one has not, or the nearest that it has."""
        owners = [name for name, command in self.commands.items() if unknown in _options(command)]
        near = difflib.get_close_matches(unknown, self._option_string_actions, n=1)
        if owners:
            return f"; {unknown} is an option of {', '.join(owners)}"
        return f"; did you mean {near[0]}?" if near else ""


class Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that leaves the examples' lines as they are, and tells defaults but no Python types."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if text and action.required:
            return f"{text} (required)"
        plain = isinstance(action.default, str | int | float) and not isinstance(action.default, bool)
        return f"{text} (default: %(default)s)" if plain and action.default != argparse.SUPPRESS else text


def make_parser(
    commands: Mapping[str, Callable[..., int]],
    examples: Mapping[str, str],
    configurable: Collection[str] = (),
    words: Collection[str] | None = None,
) -> ArgumentParser:
    """A parser with one subcommand for each function.

    A parameter without default is required, one of type bool is a flag, one that is positional-only a positional, which
    takes one or more if its type is a list. One whose type is a dataclass, a group of options, stands for the
    dataclass's fields, under a heading of their own; its default, an instance, has theirs.

    Args:
        commands: Functions by name, with Google docstrings.
        examples: Text to end the description of each command.
        configurable: Commands that also take their options from a YAML file.
        words: What will be parsed, to leave out the options of commands that are not in it; None leaves out nothing.
    """
    parser = Parser(
        prog="segradius",
        description="Measure, attack and harden image-segmentation models, guided by the certified radius.",
        formatter_class=Formatter,
        version=__version__,
    )
    parser.commands = commands
    subcommands = parser.add_subcommands(metavar="COMMAND", dest="command")
    for name, command in commands.items():
        doc = docstring_parser.parse(command.__doc__ or "")
        text = "\n\n".join(part for part in (doc.short_description, doc.long_description) if part)
        one = Parser(description=f"{text}\n\n{examples[name]}")
        one.commands = commands
        if words is None or name in words:
            if name in configurable:
                one.add_argument("--config", action="config", help="YAML file with any of these options.")
            one.kinds = flat_kinds(command)
            _add_all(one, command)
        subcommands.add_subcommand(name, one, help=doc.short_description)
    return parser


def call(make: Callable[..., T], options: Mapping[str, Any]) -> T:
    """``make`` with its arguments by name from flat ``options``, groups of options put together again.

    Example:
        >>> from segradius.cli.options import RunOptions
        >>> def command(limit: int, run: RunOptions) -> str:
        ...     return f"{limit} {run.out} {run.seed}"
        >>> call(command, vars(RunOptions("folder", seed=3)) | {"limit": 7})
        '7 folder 3'
    """
    kinds, parameters = kinds_of(make), inspect.signature(make).parameters
    own = {
        name: _from_text(name, kinds[name], options[said(name)]) for name in parameters if not _is_group(kinds[name])
    }
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    read = taken(own, kinds, defaults, {}, "here")
    return make(*(call(kinds[name], options) if _is_group(kinds[name]) else read[name] for name in parameters))


def flat_kinds(make: Callable[..., Any]) -> dict[str, Any]:
    """What each argument of a command may be, those in its groups of options included."""
    found: dict[str, Any] = {}
    for name, kind in kinds_of(make).items():
        found |= flat_kinds(kind) if _is_group(kind) else {said(name): kind}
    return found


def said(name: str) -> str:
    """An option's name as people write it: that of a field which Python keeps for itself has a line behind it.

    Example:
        >>> said("from_"), said("from_mean")
        ('from', 'from_mean')
    """
    return name.removesuffix("_")


def _options(command: Callable[..., Any]) -> set[str]:
    """Its options, without what it takes by place."""
    placed = [each.name for each in inspect.signature(command).parameters.values() if each.kind is each.POSITIONAL_ONLY]
    return {f"--{name.replace('_', '-')}" for name in flat_kinds(command) if name not in placed}


def _from_text(name: str, kind: object, value: Any) -> Any:
    """A number from its text, where one is wanted; an empty text, as of a variable that is not set, is no value."""
    if not isinstance(value, str):
        return value
    must(bool(value.strip()), name, value, f"{expected(kind)}; leave --{name.replace('_', '-')} out for its default")
    return text.value_of(value) if takes_number(kind) and not fits(kind, value) else value


def gather(argv: Sequence[str]) -> list[str]:
    """Put the values of an option that is given several times into one, with commas.

    Example:
        >>> gather(["attack", "--attack", "pgd", "--limit", "3", "--attack=dag"])
        ['attack', '--attack', 'pgd,dag', '--limit', '3']
    """
    found: list[str] = []
    place: dict[str, int] = {}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in REPEATABLE:
            found.append(word)
            continue
        value = value if equals else next(words, "")
        if name in place:
            found[place[name]] += f",{value}"
        else:
            found += [name, value]
            place[name] = len(found) - 1
    return found


def _add_all(place: Any, make: Callable[..., Any], given: object = None) -> None:
    """Add a flag for each parameter of a command or group of options, and of the groups in it.

    Args:
        place: Parser, or a section of it.
        make: The command, or the group's dataclass.
        given: A group with the defaults; None for the group's own.
    """
    docs = docstring_parser.parse(make.__doc__ or "").params
    helps = {param.arg_name: (param.description or "").replace("\n", " ") for param in docs}
    kinds, plain = kinds_of(make), get_type_hints(make)
    for name, parameter in inspect.signature(make).parameters.items():
        kind = kinds[name]
        default = parameter.default if given is None else getattr(given, name)
        if _is_group(kind):
            section = place.add_argument_group(_title(kind)) if isinstance(place, ArgumentParser) else place
            _add_all(section, kind, default if is_dataclass(default) else None)
        else:
            read = str | plain[name] if takes_number(kind) else plain[name]  # a number is read where it is called
            told = f"{helps[name]} ({expected(kind)})" if takes_number(kind) else helps[name]
            _add(place, parameter.replace(default=default), read, told)


def _is_group(kind: object) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _title(group: type) -> str:
    first = (group.__doc__ or group.__name__).strip().splitlines()[0]
    return first.rstrip(".").lower()


def _add(place: Any, parameter: inspect.Parameter, kind: object, text: str) -> None:
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        several: dict[str, Any] = {"nargs": "+", "type": str} if get_origin(kind) is list else {"type": kind}
        place.add_argument(parameter.name, help=text, **several)
        return
    flag = f"--{said(parameter.name).replace('_', '-')}"
    if kind is bool:
        place.add_argument(flag, action="store_true", help=text)
    elif parameter.default is inspect.Parameter.empty:
        place.add_argument(flag, type=kind, required=True, help=text)
    else:
        place.add_argument(flag, type=kind, default=parameter.default, help=text)
