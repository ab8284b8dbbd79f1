"""The speed of a plan's rounds and of settings chosen by hand, measured and predicted."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from mtjax.bench.planning import auto
from mtjax.bench.planning.auto import PlanCell, PlanCells, compare_settings, predicted_round
from mtjax.decode.method import Autoregressive
from mtjax.decode.planned import Arm, Planned
from mtjax.decode.speculative import Speculative
from mtjax.draft import PromptLookup
from mtjax.planning.speeds import balanced_order, batches_of, measure_speeds, plain
from mtjax.planning.store import VARIABLE
from mtjax.planning.texts import same_length
from mtjax.registry.auto import find_plan
from mtjax.registry.configs import decode_config
from mtjax.report.plans.comparison import comparison_notes, comparison_tables
from mtjax.text import TextModel
from mtjax.trees import chain
from mtjax.tuning import Competitor, Siblings
from tests.draft.drafters import LETTERS, PARAMS, TARGET
from tests.tuning.test_plan import line

TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")
TEXTS = {"list": ["abcabcab"], "other": ["hijhij", "a"]}
# The one that a config of lookup with tree="auto" and length 3 makes: it is compiled once.
VERIFIER = decode_config("lookup").verifier
LOOKUP_ALONE = Speculative(PromptLookup(length=3), VERIFIER)
NAME = "lookup:length=3"
ARM = Arm(NAME, LOOKUP_ALONE, (4,), of_text=LOOKUP_ALONE.drafter)
LOOKUP = Planned((ARM,), 1, watch=NAME)


def test_methods_are_decoded_with_in_turn_and_made_anew_for_each_text(monkeypatch):
  used, said, drafted = [], [], []
  own = TextModel.generate

  def generate(self, prompts, **settings):
    used.append(settings["method"].__class__)
    out = own(self, prompts, **settings)
    if isinstance(settings["method"], Speculative):
      drafted.append(out[1].counters["drafted_at_depth"])
    return out

  monkeypatch.setattr(TextModel, "generate", generate)
  made = []

  def make():
    made.append(1)
    return LOOKUP_ALONE, None

  systems = {"plain": plain, "lookup": make}
  texts = same_length(TEXT, TEXTS, 32)
  assert all(len(prompt) == 32 for rows in texts.values() for prompt in rows)
  found = measure_speeds(
    TEXT, systems, batch=1, texts=texts, max_tokens=32, repeats=2, progress=said.append
  )
  assert list(found) == ["plain", "lookup"]
  assert all(len(speeds) == 2 and min(speeds) > 0 for speeds in found.values())
  # One batch, which compiles, and two passes over three: the prompt alone, then the systems, each
  # first by turns.
  both = [Autoregressive, Speculative]
  orders = [both] + [both[::-1], both, both[::-1]] + [both, both[::-1], both]
  assert used == [kind for order in orders for kind in (Autoregressive, *order)]
  assert all(len(depths) == 3 and depths[0] > 0 for depths in drafted) and len(drafted) == 7
  assert len(made) == 1 + 2 * 3, "every text is decoded with a store that is new"
  assert said == ["batch 1: compiling", "batch 1: pass 1 of 2", "batch 1: pass 2 of 2"]


def test_rows_of_a_batch_are_of_all_domains_in_turn(monkeypatch):
  decoded = []
  own = TextModel.generate

  def generate(self, prompts, **settings):
    if settings["max_tokens"] > 1:
      decoded.append(prompts)
    return own(self, prompts, **settings)

  monkeypatch.setattr(TextModel, "generate", generate)
  texts = {"one": [[1] * 4, [2] * 4, [3] * 4], "two": [[4] * 4]}
  measure_speeds(TEXT, {"plain": plain}, batch=2, texts=texts, max_tokens=2, repeats=1)
  assert decoded[1:] == [[[1] * 4, [4] * 4], [[2] * 4, [3] * 4]]


@pytest.mark.parametrize("names", ["ab", "abc", "abcdef", "abcdefg"])
def test_in_enough_turns_each_is_as_often_first_and_behind_each_other_one(names):
  turns = [balanced_order(names, number) for number in range(len(names) * (1 + len(names) % 2))]
  assert all(sorted(order) == list(names) for order in turns)
  first = collections.Counter(order[0] for order in turns)
  pairs = collections.Counter(pair for order in turns for pair in itertools.pairwise(order))
  assert len(set(first.values())) == 1 and len(first) == len(names)
  assert len(set(pairs.values())) == 1 and len(pairs) == len(names) * (len(names) - 1)


def test_no_text_is_refused():
  with pytest.raises(ValueError, match="no text to decode"):
    measure_speeds(TEXT, {}, batch=1, texts={})


def test_prompts_fill_whole_batches_and_keep_their_ends():
  assert batches_of([[1], [2], [3]], 2) == [[[1], [2]], [[3], [1]]]
  assert batches_of([[1]], 3) == [[[1], [1], [1]]]
  made = same_length(TEXT, {"one": ["abcd"], "two": ["ab", "cde"]}, 3)
  letters = {name: [TEXT.tokenizer.decode(ids) for ids in rows] for name, rows in made.items()}
  assert letters == {"one": ["bcd"], "two": ["dab", "cde"]}, "filled with text of other domains"
  with pytest.raises(ValueError, match="a prompt of 'one' has no token"):
    same_length(TEXT, {"one": []}, 3)


def test_rows_of_a_batch_are_different_texts_of_one_length():
  texts = {"one": ["abcdabcdabcdabcd"], "two": ["efefefef", "gh"], "three": ["ijklijkl"]}
  made = same_length(TEXT, texts, 20, rows=4)
  for rows in made.values():
    assert [len(row) for row in rows] == [20] * 4 and len(set(map(tuple, rows))) == 4
  letters = [TEXT.tokenizer.decode(row) for row in made["one"]]
  assert letters[0].endswith("abcdabcdabcdabcd") and letters[1].endswith("abcdabcdabcda")
  assert set(letters[0][:4]) <= set("efghijkl"), "its own text stands there once"


def test_a_few_rows_are_of_all_parts_of_a_domain():
  numbers = {"one": ["abcdefghijkl"[place] * (place + 1) for place in range(12)], "two": ["a"]}
  rows = same_length(TEXT, numbers, 12, rows=12)["one"]
  letters = ["abcdefghijkl".index(TEXT.tokenizer.decode(row)[-1]) for row in rows]
  assert sorted(letters) == list(range(12))
  for first in range(0, 12, 4):
    assert {place // 4 for place in letters[first : first + 4]} == {0, 1, 2}


@pytest.mark.parametrize("tokens", [30, 32, 37])
def test_a_prompt_gives_many_different_rows(tokens):
  """Its lengths come in steps that have no common divisor with their number, 15, 16 and 18."""
  texts = {name: ["abcdefghijkl"[place:] * 4] for place, name in enumerate(["one", "two"])}
  texts = {name: [own[:tokens]] for name, (own,) in texts.items()}
  made = same_length(TEXT, texts, 48, rows=tokens // 2)
  assert {len(set(map(tuple, rows))) for rows in made.values()} == {tokens // 2}


def test_a_setting_is_predicted_by_the_profile_of_its_drafter():
  competitor = Competitor(
    "lookup", np.full((3, 1), 0.5), line(1.0, 0.1, 0.1, steps=3), Siblings.ONE
  )
  config = dict(method="lookup", drafter=dict(length=2, branches=1))
  method = Speculative(PromptLookup(length=2))
  one = predicted_round(method, config, [competitor])
  assert (one.entries, one.topology, one.expected_tokens) == (3, chain(2), 1.75)
  assert predicted_round(method, dict(config, method="draft"), [competitor]) is None
  # Of several lengths, the shortest profile that is as long.
  long = dataclasses.replace(competitor, drafter="lookup:length=3", rates=np.full((3, 1), 0.25))
  short = dataclasses.replace(
    competitor, drafter="lookup:length=2", latency=line(1.0, 0.1, 0.1, steps=2, entries=3)
  )
  found = predicted_round(method, config, [long, short])
  assert (found.drafter, found.expected_tokens) == ("lookup:length=2", 1.75)
  assert predicted_round(method, config, [long]).expected_tokens == 1.3125
  large = dict(config, drafter=dict(length=100, branches=1))
  assert predicted_round(Speculative(PromptLookup(length=100)), large, [competitor]) is None


def test_auto_is_compared_with_every_setting(monkeypatch, tmp_path, capsys):
  monkeypatch.setenv(VARIABLE, str(tmp_path / "plans"))
  config = decode_config("lookup").to_dict() | dict(tree="auto")
  config["drafter"]["length"] = 3
  config["plan"] |= dict(context=64, seconds=0.0, texts=TEXTS)
  settings = {"lookup:length=3": decode_config("lookup").to_dict()}
  settings["lookup:length=3"]["drafter"]["length"] = 3
  found = compare_settings(
    TEXT, config, settings, batch=1, texts=same_length(TEXT, TEXTS, 32), max_tokens=32, repeats=1
  )
  assert [cell.setting for cell in found.cells] == ["auto", "ar", "lookup:length=3"]
  assert all(cell.speed > 0 and cell.predicted > 0 for cell in found.cells)
  assert found.get("auto").choice and found.best.setting != "auto"
  assert capsys.readouterr().err.count("auto, batch 1") == 1, "the plan is said once"
  assert find_plan(config, TEXT).program == LOOKUP
  with pytest.raises(ValueError, match="makes no plan"):
    compare_settings(
      TEXT, settings["lookup:length=3"], {}, batch=1, texts=TEXTS, max_tokens=8, repeats=1
    )


def test_tables_say_the_share_of_the_best_and_the_error_of_predictions():
  def cell(setting, speeds, predicted, choice=""):
    return PlanCell("tiny", 4, setting, speeds, predicted, choice)

  group = PlanCells(
    (
      cell(auto.AUTO, (95.0, 99.0, 90.0), 108.0, "lookup, chain of 3"),
      cell(auto.PLAIN, (50.0, 50.0, 50.0), 45.0),
      cell("lookup", (100.0, 100.0, 100.0), None),
    )
  )
  assert group.best.setting == "lookup" and group.share(group.best) == pytest.approx(0.95)
  summary, table = comparison_tables([group])
  assert summary.rows == [
    ("tiny, batch 4", "lookup, chain of 3", "95.0", "lookup", "100.0", "0.950", "1.900", "11.8 %")
  ]
  assert [row[0] for row in table.rows] == ["lookup", "auto", "ar"] and table.rows[0][3:] == (
    "",
    "",
  )
  notes = comparison_notes([group])
  assert "0.950, of tiny at batch 4" in notes[0] and "11.8 %" in notes[1]
  assert group.cells[1].row()["error"] == pytest.approx(-0.1)
