"""What tests of reports share."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All words in pictures that are made."""
    found: list[str] = []
    save = Figure.savefig

    def noted(figure: Figure, *args: Any, **options: Any) -> None:
        found.extend(text.get_text() for text in figure.findobj(Text))
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    return found
