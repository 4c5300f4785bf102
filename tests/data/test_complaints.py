"""What readers silence they silence in their own thread, whatever another does with the filters of the process.

So it is with what they learn of a log.
"""

from __future__ import annotations

import logging
import threading
import warnings

import pytest

from segradius.data.complaints import complaints, unheard


def test_nothing_is_heard_in_the_thread_that_asks_for_it_and_all_in_another():
    inside, heard = threading.Barrier(2, timeout=60), threading.Event()

    def reader() -> None:
        with unheard():
            inside.wait()
            warnings.warn("of a file", stacklevel=1)
            assert heard.wait(60)
            warnings.warn("of a file again", stacklevel=1)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        thread = threading.Thread(target=reader)
        thread.start()
        inside.wait()
        warnings.warn("of a network", stacklevel=1)
        heard.set()
        thread.join()
    assert [str(each.message) for each in told] == ["of a network"]


def test_filters_that_another_thread_sets_and_puts_back_meanwhile_are_as_they_were():
    """Of two that keep the filters and put them back, one begun within the other, but ended after it: one is left."""
    before = [each for each in warnings.filters if each[0] != "ignore"]
    reading = unheard()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        reading.__enter__()
    reading.__exit__(None, None, None)
    assert [each for each in warnings.filters if each[0] != "ignore"] == before
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_it_ends_with_its_block_and_holds_inside_of_another():
    with unheard(), unheard():
        warnings.warn("nobody hears", stacklevel=1)
    with unheard():
        pass
    with pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_what_is_logged_is_kept_in_its_thread_also_while_another_ends():
    log, of_another, begun, end = logging.getLogger("some.other.library"), [], threading.Event(), threading.Event()

    def reader() -> None:
        with complaints(log.name) as told:
            begun.set()
            assert end.wait(60)
        of_another.extend(told)

    def ended(record: logging.LogRecord | None) -> bool:
        end.set()
        thread.join()
        return True

    thread = threading.Thread(target=reader)
    thread.start()
    assert begun.wait(60)
    log.addFilter(ended)
    try:
        with complaints(log.name) as told:
            log.warning("mended")
    finally:
        log.removeFilter(ended)
        ended(None)
    assert (told, of_another) == (["mended"], [])
