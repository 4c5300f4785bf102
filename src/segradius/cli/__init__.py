"""The command line: ``segradius attack``, ``certify``, ``compare``, ``train`` and so on; see `COMMANDS`."""

from segradius.cli.commands import COMMANDS, build_parser, main

__all__ = ["COMMANDS", "build_parser", "main"]
