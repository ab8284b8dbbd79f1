"""Canvases that fill in: what is shown of each pass, on a terminal, as a picture and as a page."""

import io
import json

import pytest

from mtjax.diffusion.traces.frames import CanvasFrame
from mtjax.report.canvas.gif import canvas_gif, check_gif
from mtjax.report.canvas.layout import Cell, lay_out
from mtjax.report.canvas.page import canvas_page_of_record
from mtjax.report.canvas.record import CanvasChange, CanvasRun, canvas_record, changes_of
from mtjax.report.canvas.spelling import spelled
from mtjax.report.canvas.terminal import colored_canvases, plain_canvases
from mtjax.report.history.page import page_of_file
from mtjax.report.history.run_json import read_run
from tests.evaluate.pages import HOSTILE, Reader, Tokens

A, B, EVIL, LINE = 0, 1, 2, 6  # tokens of PIECES
FIRST, SECOND = Tokens.halves


class Ended(Tokens):
  eos_ids = (Tokens.end,)


def frame(number, *rows):
  """Returns a frame of (token, decided_at) per position; None where a mask stands."""
  tokens = [[None if one is None else one[0] for one in row] for row in rows]
  return CanvasFrame(number, tokens, [[0 if one is None else one[1] for one in r] for r in rows])


# The halves of one character in two passes; a token that is masked again, and replaced.
FRAMES = [
  frame(0, [None] * 4),
  frame(1, [(A, 1), None, (FIRST, 1), None]),
  frame(2, [None, (B, 2), (FIRST, 1), (SECOND, 2)]),
  frame(3, [(EVIL, 3), (LINE, 3), (FIRST, 1), (SECOND, 2)]),
]
RUN = CanvasRun([[A, B]], FRAMES)
CHANGES = [
  CanvasChange(1, 0, A), CanvasChange(1, 2, FIRST), CanvasChange(2, 0, None),
  CanvasChange(2, 1, B), CanvasChange(2, 3, SECOND), CanvasChange(3, 0, EVIL),
  CanvasChange(3, 1, LINE),
]  # fmt: skip


def record(**more):
  return json.loads(json.dumps(dict(canvas_record(RUN, Ended()), **more)))


def test_a_character_stands_at_its_last_token_and_is_cut_off_by_a_mask():
  assert spelled([b"a", b"\xc3", b"\xa9", b"b"]) == ["a", "", "é", "b"]
  assert spelled([b"\xc3", None, b"\xa9"]) == ["\ufffd", None, "\ufffd"]
  assert spelled([b"\xc3"]) == ["\ufffd"] and spelled([None]) == [None] and spelled([]) == []


def test_changes_are_what_differs_between_frames():
  assert changes_of(RUN, 0) == CHANGES
  again = CanvasRun([[A]], [frame(0, [(A, 1)]), frame(1, [(A, 2)])])
  assert changes_of(again, 0) == [CanvasChange(1, 0, A)]
  with pytest.raises(ValueError, match=r"no canvas: denoise with on_pass=frames.append"):
    CanvasRun([[A]], [])


def test_a_terminal_shows_masks_and_tokens():
  shown = colored_canvases(FRAMES[1], Ended())
  assert shown.plain == "a░\ufffd░"
  assert colored_canvases(frame(1, [(A, 1)], [None]), Ended()).plain == "[0] a\n[1] ░"
  assert plain_canvases(FRAMES[2], Ended()) == repr("░ bé")
  assert plain_canvases(frame(1, [(Tokens.end, 1)]), Ended()) == repr("∎")


def test_passes_have_colours_of_their_own():
  one = frame(3, [(A, 1), (A, 2), (A, 3)])
  styles = {str(span.style) for span in colored_canvases(one, Ended()).spans}
  assert len(styles) == 3


def test_every_character_has_a_cell_within_the_columns():
  layout = lay_out("ab\nc", ["de", "\n", None, "", "字"], columns=3)
  assert layout.prompt == [(Cell(0, 0, 1), "a"), (Cell(1, 0, 1), "b"), (Cell(0, 1, 1), "c")]
  assert layout.places == [
    [Cell(1, 1, 1), Cell(2, 1, 1)],
    [Cell(0, 2, 1)],
    [Cell(0, 3, 1)],
    [Cell(1, 3, 1)],
    [Cell(0, 4, 2)],
  ]
  assert layout.lines == 5


def test_the_picture_has_a_frame_for_each_pass():
  image = pytest.importorskip("PIL.Image", reason="pip install 'mtjax[viz]'")
  made = canvas_gif(RUN, Ended())
  opened = image.open(io.BytesIO(made.data))
  assert opened.format == "GIF" and opened.n_frames == 4 and opened.info["loop"] == 0
  pixels = []
  for number in range(4):
    opened.seek(number)
    pixels.append(opened.convert("RGB").tobytes())
  assert len(set(pixels)) == 4
  assert made._repr_html_().startswith("<img ")


def test_an_animated_picture_is_a_gif():
  with pytest.raises(ValueError, match=r"is a .gif, by its suffix: got 'a.png'"):
    check_gif("a.png")


def test_the_page_has_an_element_for_each_position_and_every_change():
  shown = Reader(canvas_page_of_record(record(settings=dict(model="tiny<b>"))))
  elements = shown.all("span", data_entry=...)
  assert [attrs["data-entry"] for attrs, _ in elements] == list("0123")
  assert [text for _, text in elements] == [HOSTILE[0], "⏎\n", "▫", "é"]
  data = json.loads(shown.data)
  (row,) = data["texts"]
  assert row["changes"] == {
    "0": [[1, A], [2, None], [3, EVIL]], "1": [[2, B], [3, LINE]], "2": [[1, FIRST]],
    "3": [[2, SECOND]],
  }  # fmt: skip
  assert row["shown"]["0"] == [[1, "a"], [2, None], [3, HOSTILE[0]]]
  # What a position shows may change without it: its character is completed by the next one.
  assert row["shown"]["2"] == [[1, "\ufffd"], [2, "▫"]] and row["last"] == 3
  assert any("tiny<b>" in text for _, text in shown.all("h1"))
  assert ("1", "time masked again") in [
    (text[: len("1")], text[len("1") :]) for _, text in shown.all("div")
  ]


def test_a_stopped_run_shows_what_is_still_masked():
  run = CanvasRun([[A]], FRAMES[:2])
  fields = canvas_record(run, Ended())
  page = canvas_page_of_record(json.loads(json.dumps(dict(fields, complete=False))))
  shown = Reader(page)
  kinds = [attrs["class"] for attrs, _ in shown.all("span", data_entry=...)]
  assert [("open" in kind) for kind in kinds] == [False, True, False, True]
  assert "stopped before" in str(page)


def test_a_file_of_a_run_becomes_the_page_and_has_no_tree(tmp_path):
  path = tmp_path / "run.json"
  path.write_text(json.dumps(record()))
  assert str(page_of_file(path)) == str(canvas_page_of_record(record()))
  with pytest.raises(ValueError, match="run.json holds canvases that were denoised, without trees"):
    read_run(path)
  path.write_text(json.dumps(record(canvases=[dict(length=1, changes=[3])])))
  with pytest.raises(ValueError, match="run.json: this is no canvas of a run that denoised"):
    page_of_file(path)
  with pytest.raises(ValueError, match="has no canvas: run it again with --history"):
    canvas_page_of_record({})
