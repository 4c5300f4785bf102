"""Where a verdict is written beside the screen: files that a pipeline keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segradius.core.errors import InputError


@dataclass(frozen=True)
class VerdictFiles:
    """Files of the verdict.

    Args:
        junit: JUnit XML for a pipeline, a test case for each row or rule.
        markdown: Markdown that fits into a comment on a pull request.
        json: Everything, for a program.
    """

    junit: str | None = None
    markdown: str | None = None
    json: str | None = None

    @property
    def any(self) -> bool:
        """Whether one is wanted."""
        return bool(self.junit or self.markdown or self.json)

    def write(self, junit: Callable[[], bytes], markdown: Callable[[], str], json: Callable[[], str]) -> None:
        """Write those that are wanted, each whole or not at all.

        Args:
            junit: Gives its content.
            markdown: Likewise.
            json: Likewise.

        Raises:
            InputError: A folder is not there.
        """
        from segradius.core.storage import write_atomically

        wanted = ((self.junit, junit), (self.markdown, markdown), (self.json, json))
        for name, _ in wanted:
            if name and not Path(name).resolve().parent.is_dir():
                raise InputError(f"{name} cannot be written: there is no folder {Path(name).parent}")
        for name, content in wanted:
            if name:
                write_atomically(Path(name), content())
