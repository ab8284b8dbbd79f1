"""Acceptance by depth as a figure, and the animation of a text being filled."""

import dataclasses
import re

import numpy as np
import pytest

from mtjax.anysubset.infill import Infilling
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.decode.generation import Generation
from mtjax.report.history.acceptance import acceptance_by_depth, acceptance_picture
from mtjax.report.history.animation import fill_animation

BYTES = ByteTokenizer()


def generation(**counters):
  return Generation([[1], [2]], ["length"] * 2, dict(tokens_per_forward=2.0, **counters), [[], []])


# Two rows: 10 forward passes of the target, of which 2 are prefills, so 8 rounds.
RUN = generation(target_forwards=10, accepted_at_depth=[6, 2])


def test_shares_are_of_rounds_without_the_prefill():
  assert acceptance_by_depth(RUN).tolist() == [0.75, 0.25]


def test_the_figure_has_a_line_per_run():
  figure = acceptance_picture({"one": RUN, "two": RUN})
  lines = figure.axes[0].get_lines()
  assert [line.get_label().split(":")[0] for line in lines] == ["one", "two"]
  np.testing.assert_array_equal(lines[0].get_xdata(), [1, 2])
  np.testing.assert_array_equal(lines[0].get_ydata(), [0.75, 0.25])


def test_runs_without_drafts_are_refused():
  with pytest.raises(ValueError, match="has no drafts"):
    acceptance_picture({"ar": generation(target_forwards=10)})
  with pytest.raises(ValueError, match="no run to show"):
    acceptance_picture({})


# "a<é!" of bytes: the two bytes of é were decided in passes 2 and 1, "!" in pass 2.
FILLED = Infilling(
  text="a<é!",
  blanks=["é!"],
  tokens=list("a<é!".encode()),
  is_target=[False, False, True, True, True],
  decided_at=[0, 0, 2, 1, 2],
  drafted=[False, False, False, True, True],
  lengths=(3,),
  counters={},
)


def test_tokens_appear_with_their_last_byte():
  html = fill_animation(FILLED, BYTES)._repr_html_()
  spans = re.findall(r'<span class="(p\d) ([do])"[^>]*>(.*?)</span>', html)
  assert spans == [("p2", "o", "é"), ("p2", "d", "!")]
  assert "a&lt;" in html
  assert [f"{n} of 2 forward passes" in html for n in range(4)] == [True, True, True, False]
  assert ["0 of 3 tokens" in html, "1 of 3 tokens" in html, "3 of 3 tokens" in html] == [True] * 3


def test_the_animation_needs_no_script_and_no_file():
  html = fill_animation(FILLED, BYTES).html
  assert not re.search(r"<script|https?:|src=", html)
  assert html.count("{") == html.count("}")


def test_two_animations_share_no_name():
  other = dataclasses.replace(FILLED, text="b<é!")
  names = [
    set(re.findall(r"@keyframes (\w+)", fill_animation(one, BYTES).html)) for one in (FILLED, other)
  ]
  assert names[0]
  assert not names[0] & names[1]


def test_open_tokens_and_bad_speeds_are_refused():
  still_open = dataclasses.replace(FILLED, decided_at=[0, 0, 2, 0, 2])
  with pytest.raises(ValueError, match="still open"):
    fill_animation(still_open, BYTES)
  with pytest.raises(ValueError, match="seconds_per_pass must be positive"):
    fill_animation(FILLED, BYTES, seconds_per_pass=0)
