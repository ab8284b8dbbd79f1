"""The table and the picture of a sweep say what its runs measured, with means over seeds."""

import math

import pytest

from mtjax.report.sweep import picture
from mtjax.report.sweep.groups import (
  grouped,
  interval,
  short_names,
  shown_value,
  shown_values,
  varied,
)
from mtjax.report.sweep.page import page
from mtjax.report.sweep.table import cell, shown, table
from tests.evaluate.pages import Reader

RATE, OTHER, PROMPT = "config.optimizer.learning_rate", "config.draft.learning_rate", "prompt"


def row(settings, seed, state="finished", **metrics):
  return dict(settings=settings, seed=seed, state=state, metrics=metrics)


def rows(rates=(0.001, 0.01), seeds=(0, 1, 2), **more):
  return [
    row({RATE: rate} | more, seed, loss=number + seed)
    for number, rate in enumerate(rates, 1)
    for seed in seeds
  ]


def test_the_interval_is_students():
  # Student's t: the 97.5 % quantile is 4.302653 with 2 degrees of freedom, 12.706205 with 1.
  one = interval([1.0, 2.0, 3.0])
  assert one.mean == 2 and one.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
  two = interval([1.0, 2.0])
  assert two.half == pytest.approx(12.706205 * math.sqrt(0.5) / math.sqrt(2), rel=1e-6)
  assert interval([5.0]).half is None


def test_runs_that_differ_in_their_seed_are_one_group():
  groups = grouped(rows())
  assert [(group.settings, len(group.rows)) for group in groups] == [
    ({RATE: 0.001}, 3),
    ({RATE: 0.01}, 3),
  ]
  assert varied(groups) == [RATE]
  assert varied(grouped(rows(rates=(0.1,)))) == []
  assert varied(grouped([row({PROMPT: "a"}, 0), row({}, 0)])) == [PROMPT]


def test_names_are_short_while_they_differ():
  assert short_names([RATE, PROMPT]) == {RATE: "learning_rate", PROMPT: "prompt"}
  assert short_names([RATE, OTHER])[OTHER] == "draft.learning_rate"
  assert shown_value("a\n" + "b" * 50) == "a " + "b" * 29 + "…"


def test_long_values_are_cut_only_while_they_differ():
  long = "b" * 40
  settings = [{PROMPT: long}, {PROMPT: "a"}, {}]
  assert shown_values(settings, PROMPT) == ["b" * 31 + "…", "a", "-"]
  assert shown_values([*settings, {PROMPT: long + "c"}], PROMPT) == [long, "a", "-", long + "c"]


def test_a_line_per_setting_has_mean_interval_and_number_of_runs():
  made = table("lr", rows(), ["loss"])
  assert made.header == ("learning_rate", "n", "loss")
  assert made.rows == [("0.001", "3", "2.0 ± 2.5"), ("0.01", "3", "3.0 ± 2.5")]
  assert "95 % interval over n runs" in made.title


def test_cells_say_what_is_missing():
  lines = [
    row({RATE: 1}, 0, loss=None, speed=3.0),
    row({RATE: 1}, 1, loss=2.0, speed=3.0),
    row({RATE: 1}, 2, "failed"),
  ]
  (group,) = grouped(lines)
  assert cell(group, "loss") == "diverged (1 of 2)" and cell(group, "speed") == "3 ± 0"
  assert cell(group, "other") == "-"
  assert table("lr", lines, ["loss"]).rows == [("2 of 3", "diverged (1 of 2)")]
  assert shown(interval([1234.5678])) == "1235"
  # Two digits of the interval, and the mean to the same place.
  assert shown(interval([0.1230, 0.1234])) == "0.1232 ± 0.0025"
  assert shown(interval([1000.0, 2000.0])) == "1,500 ± 6,353"


def test_a_bar_in_a_text_does_not_end_a_column():
  made = table("prompts", [row({PROMPT: "a | b"}, 0), row({PROMPT: "c"}, 0)], [])
  assert made.rows[0][0] == "a \\| b"


@pytest.mark.parametrize(
  ("values", "expected"),
  [
    ([1e-3, 1e-2], True),
    ([1, 2, 4, 8, 16], True),
    ([1, 2, 4], False),
    ([0, 1, 100], False),
    ([-1, 100], False),
    (["a", 100], False),
    ([], False),
  ],
)
def test_the_axis_is_logarithmic_for_values_that_span_a_factor_of_ten(values, expected):
  assert picture.is_logarithmic(values) is expected


def test_the_axis_is_the_flag_with_the_largest_number_of_numbers():
  both = [row({PROMPT: p, RATE: r, "n": n}, 0) for p in "abcd" for r in (1, 2, 3) for n in (1, 2)]
  groups = grouped(both)
  assert picture.swept_axis(varied(groups), groups) == RATE
  words = grouped([row({PROMPT: p}, 0) for p in "ab"])
  assert picture.swept_axis([PROMPT], words) == PROMPT and picture.swept_axis([], words) == ""


def test_the_picture_shows_means_intervals_and_single_runs():
  pytest.importorskip("matplotlib", reason="pip install 'mtjax[viz]'")
  lines = rows(prompt="a") + rows(prompt="b", seeds=(0,))
  for one in lines:
    one["metrics"] |= dict(speed=5.0, a=1.0, b=1.0)
  drawn = picture.figure("lr", lines, ["loss", "speed", "a", "b"])
  assert len(drawn.axes) == 3, "three panels at the most"
  (panel, *_) = drawn.axes
  assert panel.get_xscale() == "log" and panel.get_xlabel() == "learning_rate"
  assert [text.get_text() for text in panel.get_xticklabels()] == ["0.001", "0.01"]
  assert [text.get_text() for text in panel.get_legend().get_texts()] == ["a", "b"]
  first, second = panel.containers
  assert first.lines[0].get_ydata().tolist() == [2, 3]
  low, high = first.lines[2][0].get_segments()[0][:, 1]
  assert (high - low) / 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
  assert not any(len(segment) for segment in second.lines[2][0].get_segments())
  assert "over 1 to 3 runs" in drawn.get_suptitle()


def test_the_legend_of_many_lines_is_below_the_panels():
  pytest.importorskip("matplotlib", reason="pip install 'mtjax[viz]'")
  drawn = picture.figure("lr", [one for name in "abcde" for one in rows(prompt=name)], ["loss"])
  assert drawn.axes[0].get_legend() is None
  (legend,) = drawn.legends
  assert [text.get_text() for text in legend.get_texts()] == list("abcde")
  assert legend.get_title().get_text() == "prompt"


def test_words_are_places_of_the_axis_and_a_diverged_setting_has_none():
  pytest.importorskip("matplotlib", reason="pip install 'mtjax[viz]'")
  lines = [row({PROMPT: p}, 0, loss=v) for p, v in (("a", 1.0), ("b", None), ("c", 3.0))]
  drawn = picture.figure("words", lines, ["loss"])
  (panel,) = drawn.axes
  assert [text.get_text() for text in panel.get_xticklabels()] == ["a", "b", "c"]
  assert panel.containers[0].lines[0].get_xdata().tolist() == [0, 2]
  assert drawn.get_suptitle() == "words: one run per setting"
  with pytest.raises(ValueError, match="no run has finished"):
    picture.figure("words", [row({}, 0, "failed")], ["loss"])


def test_a_page_has_the_table_the_plot_and_all_runs():
  pytest.importorskip("matplotlib", reason="pip install 'mtjax[viz]'")
  lines = rows(prompt="a|b") + rows(prompt="</td><img src=x>") + [row({RATE: 1}, 0, "failed")]
  reader = Reader(page("<lr>", lines, ["loss"]))
  assert [text for _, text in reader.all("h1")] == ["Sweep <lr>"]
  cells = [text for _, text in reader.all("td")]
  assert cells[:4] == ["0.001", "a|b", "3", "2.0 ± 2.5"] and "</td><img src=x>" in cells
  (image,) = [attrs for tag, attrs in reader.elements if tag == "img"]
  assert image["src"].startswith("data:image/png")
  assert "12 of 13" in reader.all("main")[0][1]
  assert cells[-6:] == ["12", "1", "-", "0", "failed", "-"]


def test_a_page_without_a_finished_run_says_so():
  reader = Reader(page("lr", [row({RATE: 1}, 0, "failed")], ["loss"]))
  assert "No plot: no run has finished" in reader.all("main")[0][1] and not reader.all("img")
