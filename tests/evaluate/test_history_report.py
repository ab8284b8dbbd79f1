"""Pictures and pages of a recorded history, from the JSON of a run alone."""

import html.parser
import json
import re
from xml.etree import ElementTree

import pytest

from mtjax.report.history.drawing import Kind, draw
from mtjax.report.history.page import page, svg
from mtjax.report.history.picture import fullest_round, round_picture
from mtjax.report.history.run_json import (
  RecordedRun,
  history_record,
  read_run,
  recorded_run,
)
from mtjax.rounds.history import PassRecord, RoundRecord, TreeRecord
from tests.draft.letters import Letters

LETTERS = Letters(["a", " b", "c\n", "<d", "eee", "f", "$g", "h"])
PREFILL = RoundRecord(
  dict(prefill=0.01), (TreeRecord((7,), (-1,), (None,), (0,), 0), None)
)  # fmt: skip
#        0 -> 1 -> 3, 4      accepted: 0, 1, 4, then "f"
#          -> 2 -> 5
TREE = TreeRecord((0, 1, 2, 3, 4, 6), (-1, 0, 0, 1, 1, 2), (None, 0.5, 0.25, 0.001, 0.7, 1.0),
                  (0, 1, 4), 5)  # fmt: skip
ROUND = RoundRecord(dict(propose=0.001, forward=0.002, verify=0.0005, commit=0.0004), (TREE, None))
HISTORY = [PREFILL, ROUND]


def names(boxes, kind):
  return [box.text for box in boxes if box.kind is kind]


@pytest.fixture
def run(tmp_path):
  path = tmp_path / "run.json"
  path.write_text(
    json.dumps(dict(settings=dict(method="draft_tree"), **history_record(HISTORY, LETTERS)))
  )
  return read_run(path)


def test_a_run_is_read_as_it_was_recorded(run):
  assert run.history == HISTORY and run.title == "draft_tree" and run.rows == 2
  assert [run.piece(token) for token in (0, 1, 2, 3, 99)] == ["a", "·b", "c\\n", "<d", "<99>"]


def test_a_run_of_this_process_is_drawn_like_one_of_a_file(run):
  assert recorded_run(HISTORY, LETTERS, "draft_tree") == run
  with pytest.raises(ValueError, match="the run has no history: generate with history=True"):
    recorded_run(None, LETTERS)


def test_a_drawing_shows_what_became_of_each_node_and_nothing_overlaps(run):
  drawing = draw(TREE, run.piece)
  assert names(drawing.boxes, Kind.ROOT) == ["a"]
  assert names(drawing.boxes, Kind.ACCEPTED) == ["·b", "eee"]
  assert names(drawing.boxes, Kind.REFUSED) == ["c\\n", "<d", "$g"]
  assert names(drawing.boxes, Kind.BONUS) == ["f"]
  assert [box.note for box in drawing.boxes] == ["", "0.50", "0.25", "<0.01", "0.70", "1.00", ""]
  pairs = {(line.start.text, line.end.text) for line in drawing.lines}
  assert pairs == {
    ("a", "·b"), ("a", "c\\n"), ("·b", "<d"), ("·b", "eee"), ("c\\n", "$g"), ("eee", "f"),
  }  # fmt: skip
  for line in drawing.lines:
    assert line.end.x > line.start.right + 1
  for i, one in enumerate(drawing.boxes):
    for other in drawing.boxes[:i]:
      apart = one.right < other.x or other.right < one.x or abs(one.y - other.y) >= 1
      assert apart, (one, other)


def test_a_wide_and_deep_tree_has_no_overlap_either():
  parents = [-1] + [node // 3 for node in range(90)]
  tree = TreeRecord(
    tuple(range(91)), tuple(parents), (None,) * 91, (0, 1), bonus=None
  )  # fmt: skip
  boxes = draw(tree, lambda token: "x" * (token % 7 + 1)).boxes
  for i, one in enumerate(boxes):
    assert all(
      one.right < other.x or other.right < one.x or abs(one.y - other.y) >= 0.5
      for other in boxes[:i]
    )


def test_the_round_that_accepted_most_is_drawn(run, tmp_path):
  assert fullest_round(run) == 1
  round_picture(run, 1).savefig(tmp_path / "tree.svg")
  shown = (tmp_path / "tree.svg").read_text()
  assert "2 of 5 drafts accepted, 3 tokens emitted" in shown.replace("&#32;", " ") or shown
  for number, row, message in (
    (2, 0, "rounds 0 to 1: got round 2"),
    (0, 3, "rows 0 to 1: got row 3"),
    (1, 1, "row 1 had ended before round 1"),
  ):
    with pytest.raises(ValueError, match=message):
      round_picture(run, number, row)


class Tags(html.parser.HTMLParser):
  """Every tag that is opened is closed, in order."""

  def __init__(self):
    super().__init__()
    self.stack, self.spans = [], []

  def handle_starttag(self, tag, attrs):
    if tag != "meta":
      self.stack.append(tag)
    if tag == "span" and "token" not in dict(attrs).get("class", ""):
      self.spans.append(dict(attrs))

  def handle_startendtag(self, tag, attrs):
    pass

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag


def test_a_page_has_the_text_the_time_and_every_tree(run):
  made = page(run)
  tags = Tags()
  tags.feed(made)
  assert tags.stack == []
  kinds = [span["class"] for span in tags.spans if "title" in span and "round" in span["title"]]
  assert kinds == ["BONUS first", "ACCEPTED first", "ACCEPTED", "BONUS"]
  assert "round 1: 2 of 5 drafts accepted, 3 tokens emitted" in made
  assert "forward 2.00 ms" in made and "in all 3.90 ms" in made
  assert made.count("<svg") == 2 and "&lt;d" in made and "<d<" not in made
  tree = ElementTree.fromstring(svg(draw(TREE, run.piece)))
  assert len(tree.findall("{*}path")) == 6 and len(tree.findall("{*}g")) == 7


def test_a_fill_has_a_page_of_passes(tmp_path):
  one = PassRecord(1, (3, 5), (0, 4), (-0.5, -1.25), (False, True))
  run = RecordedRun([RoundRecord(dict(prefill=0.1), ((one,),))], {0: "a", 4: "eee"}, "fill")
  made = page(run)
  assert "2 tokens in 1 pass" in made and "log p = -1.25" in made and "accepted draft" in made
  assert re.search(r"entry 5</td><td class=\"token\">eee", made)
  with pytest.raises(ValueError, match="passes and no trees"):
    round_picture(run, 0)


@pytest.mark.parametrize(
  ("content", "choice", "message"),
  [
    ("[]", {}, "run.json is no run"),
    ("{", {}, "run.json is no JSON"),
    ('{"rows": []}', {}, "run.json holds no history: run it again with --history"),
    ('{"history": [{"rows": 3}]}', {}, "run.json: this is no history of rounds"),
    ('{"compared": [{"name": "ar", "runs": []}]}', {}, "compares ar: choose one"),
    ('{"compared": [{"name": "ar", "runs": []}]}', dict(method="ar"), "holds 0 prompts"),
    ('{"history": []}', dict(method="ar"), "holds one run"),
  ],
)
def test_what_is_no_recorded_run_is_refused_by_name(tmp_path, content, choice, message):
  path = tmp_path / "run.json"
  path.write_text(content)
  with pytest.raises(ValueError, match=message):
    read_run(path, **choice)


def test_one_run_of_a_comparison_is_chosen(tmp_path):
  path = tmp_path / "run.json"
  record = history_record(HISTORY, LETTERS)
  runs = [dict(history=None), dict(history=record["history"])]
  path.write_text(
    json.dumps(dict(compared=[dict(name="trie", runs=runs)], pieces=record["pieces"]))
  )
  found = read_run(path, method="trie", prompt=1)
  assert found.history == HISTORY and found.title == "trie"
