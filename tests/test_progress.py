"""What is said of long work where no bars are drawn."""

import io
import sys
from functools import partial

import pytest

from pellucid.cli.console import progress
from pellucid.progress import Log, duration, reporting, task


def told(total, steps, label="pictures"):
    """What a log says of work whose steps take so many seconds; `steps`: (steps, seconds) each."""
    lines, now = [], [0.0]
    with reporting(Log(lines.append, lambda: now[0])), task(label, total) as advance:
        for count, seconds in steps:
            now[0] += seconds
            advance(count)
    return lines


def test_what_is_left_is_said_once_as_soon_as_it_can_be_told():
    line = "pictures: 40 of 200 in 20 s, some 1 min 20 s are left."
    assert told(200, [(20, 10)] * 10) == [line]
    assert told(200, [(100, 30), (100, 30)]) == []  # less than a minute
    assert told(100, [(1, 1)] * 100) == ["pictures: 5 of 100 in 5 s, some 1 min 35 s are left."]


def test_one_step_alone_tells_little_and_a_long_one_something():
    assert told(10, [(1, 19), (1, 1), (1, 1)]) == ["pictures: 2 of 10 in 20 s, some 1 min 20 s are left."]
    assert told(10, [(1, 21)]) == ["pictures: 1 of 10 in 21 s, some 3 min 9 s are left."]


def test_steps_that_were_kept_from_a_run_before_do_not_make_the_rest_short():
    assert told(23, [(1, 0.01)] * 20 + [(1, 150)]) == ["pictures: 21 of 23 in 2 min 30 s, some 5 min 0 s are left."]


def test_of_work_that_is_not_counted_nothing_is_said():
    assert told(None, [(1, 100)] * 3) == told(0, [(1, 100)] * 3) == told(100, [(0, 100)] * 3) == []


def test_a_command_says_it_on_stderr(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("pellucid.progress.Log", partial(Log, clock=iter([0.0, 30.0, 60.0]).__next__))
    with progress(), task("pictures", 100) as advance:
        advance(1)
        advance(1)
    assert stream.getvalue() == "pictures: 1 of 100 in 30 s, some 49 min 30 s are left.\n"


@pytest.mark.parametrize(("seconds", "text"), [(40.4, "40 s"), (125, "2 min 5 s"), (3780, "1 h 3 min")])
def test_a_span_of_time_in_words(seconds, text):
    assert duration(seconds) == text
