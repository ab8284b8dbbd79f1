"""A run over an infilling task: what its figures mean, orders, and answers that are continued."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mtjax.anysubset import Sequential, log_likelihood, make_canvas
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.tasks import records as records_lib
from mtjax.evaluate.tasks import run as run_lib
from mtjax.evaluate.tasks.examples import Example, cut, from_pieces
from mtjax.evaluate.tasks.lambada import Lambada
from mtjax.evaluate.tasks.registry import NAMES
from mtjax.evaluate.tasks.run import Filler
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.report.infilling_tables import infilling_table
from mtjax.text import TextModel

BYTES = ByteTokenizer()
PIECES = [("def f", False), ("(x)", True), (": y", False), ("z", True), ("!", False)]
GREEDY = Filler(method=Sequential())
LAST = "left_to_right"


@dataclasses.dataclass(frozen=True)
class Shown:
  """A task that records what its judge is shown."""

  temperature = 0.0

  def judge(self, example, answer):
    return dict(tokens_seen=list(answer.tokens), blank=answer.blank, text=answer.text)

  def summary(self, records):
    return {}


@pytest.fixture(scope="module")
def tiny():
  named = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  config = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), **named)
  model = Model(config)
  return TextModel(model, model.init(jax.random.key(0)), BYTES)


@pytest.fixture(scope="module")
def example():
  return from_pieces("one", PIECES, BYTES)


def density(model, tokens, is_target):
  canvas = make_canvas(model.model.config, np.array([tokens]), np.array([is_target]))
  return np.array(log_likelihood(model.model, model.params, canvas))[0, 1:]


def test_what_is_filled_is_scored_judged_and_the_given_is_kept(tiny, example):
  (record,) = run_lib.run(tiny, Shown(), [example], GREEDY)
  is_target = np.array(example.is_target)
  seen = np.array(record["tokens_seen"])
  assert (seen[~is_target] == np.array(example.tokens)[~is_target]).all()
  assert record["forwards"] == record["filled"] == record["tokens"] == 4
  assert record["nats"] == pytest.approx(-density(tiny, example.tokens, example.is_target).sum())
  assert record["text"] == bytes(seen.tolist()).decode("utf-8", "replace")
  assert record["text"].startswith("def f") and record["blank"] in record["text"]
  # Only where what the model fills in was there before is it an exact match.
  own = dataclasses.replace(example, tokens=tuple(seen.tolist()))
  one_off = np.where(np.arange(len(seen)) == example.blank.start, (seen + 1) % 256, seen)
  other = dataclasses.replace(example, tokens=tuple(one_off.tolist()))
  records = run_lib.run(tiny, Shown(), [own, other], GREEDY)
  assert [r["exact"] for r in records] == [True, False]
  figures = run_lib.summary(Shown(), records)
  assert figures["exact"] == 0.5 and figures["tokens_per_forward"] == 1
  assert figures["nats"] == pytest.approx(sum(r["nats"] for r in records) / 8)


def test_left_to_right_nothing_behind_a_token_is_seen(tiny, example):
  (record,) = run_lib.run(tiny, Shown(), [example], dataclasses.replace(GREEDY, order=LAST))
  stop = example.blank.stop
  prefix = np.arange(stop) >= example.blank.start
  own = density(tiny, example.tokens[:stop], prefix)
  counted = np.array(example.is_target)[:stop]
  assert record["nats"] == pytest.approx(-own[counted].sum(), rel=1e-5)
  assert record["filled"] == 7 and record["tokens"] == 4
  behind = [("def f", False), ("(x)", True), (": y", False), ("z", True), ("?" * 9, False)]
  changed = from_pieces("one", behind, BYTES)
  for order, same in ((LAST, True), ("lattice", False)):
    filler = dataclasses.replace(GREEDY, order=order)
    a, b = run_lib.run(tiny, Shown(), [example, changed], filler)
    assert (a["nats"] == pytest.approx(b["nats"], rel=1e-5)) == same


def test_draws_depend_on_seed_and_name_alone(tiny, example):
  filler = Filler(order="random", temperature=1.0)
  second = dataclasses.replace(example, name="two")
  a, b = run_lib.run(tiny, Shown(), [example, second], filler)
  (again,) = run_lib.run(tiny, Shown(), [second], filler)
  assert again == b and a["tokens_seen"] != b["tokens_seen"]
  (other,) = run_lib.run(tiny, Shown(), [second], dataclasses.replace(filler, seed=1))
  assert other["tokens_seen"] != b["tokens_seen"]


def test_what_is_known_of_the_same_order_is_not_done_again(tiny, example):
  second = dataclasses.replace(example, name="two")
  known = [dict(name="one", order="lattice", mark=1), dict(name="two", order="random", mark=2)]
  new = []
  first, last = run_lib.run(tiny, Shown(), [example, second], GREEDY, known=known, each=new.append)
  assert first == known[0] and new == [last] and last["name"] == "two" and "mark" not in last


def test_answers_are_continued_under_the_same_settings_only(tmp_path):
  path = tmp_path / "answers.jsonl"
  settings = dict(task="lambada", orders=("lattice",))
  assert records_lib.resumed(path, settings) == []
  records_lib.append(path, dict(name="one"))
  with open(path, "a") as file:
    file.write('{"name": "tw')  # the run was stopped here
  assert records_lib.resumed(path, settings) == [dict(name="one")]
  records_lib.append(path, dict(name="two"))
  assert records_lib.resumed(path, settings) == [dict(name="one"), dict(name="two")]
  before = path.read_text()
  with pytest.raises(ValueError, match="answers of other settings .task 'lambada', not 'sudoku'.:"):
    records_lib.resumed(path, dict(settings, task="sudoku"))
  assert path.read_text() == before
  path.write_text("[1]\n")
  with pytest.raises(ValueError, match="no answers of these settings but '.1.'"):
    records_lib.resumed(path, settings)
  path.write_text('{"task"')
  assert records_lib.resumed(path, settings) == []
  assert json.loads(path.read_text()) == json.loads(json.dumps(settings))


def test_answers_to_data_that_changed_are_not_continued(tmp_path):
  path, data = tmp_path / "answers.jsonl", tmp_path / "data.jsonl"
  data.write_text("one")
  records_lib.resumed(path, dict(data=str(data), **records_lib.data_identity(data)))
  assert records_lib.resumed(path, dict(data=str(data), **records_lib.data_identity(data))) == []
  data.write_text("two")  # of one size
  with pytest.raises(ValueError, match=r"other settings \(data_sha256 '7692.*, not '3fc4"):
    records_lib.resumed(path, dict(data=str(data), **records_lib.data_identity(data)))


def test_other_weights_have_another_identity(tiny):
  own = records_lib.params_identity(tiny.params)
  assert own == records_lib.params_identity(jax.tree.map(np.array, tiny.params))
  changed = jax.tree.map(np.array, tiny.params)
  changed["final_norm"]["weight"][3] += 1e-6
  assert own != records_lib.params_identity(changed)


def test_examples_are_cut_around_the_blank_and_spread_over_the_set():
  example = from_pieces("x", [("a" * 20, False), ("bb", True), ("c" * 3, False)], BYTES)
  assert bytes(cut(example, 10).tokens) == b"aaaaabbccc" and sum(cut(example, 10).is_target) == 2
  assert cut(example, 100) == example
  with pytest.raises(ValueError, match="x: a blank of 2 tokens, and 1 have room"):
    cut(example, 1)
  with pytest.raises(ValueError, match="0 asked"):
    Example("x", (1,), (False,))
  assert run_lib.spread(list("abcdef"), 3) == ["a", "c", "e"]
  assert run_lib.spread(list("ab"), 3) == run_lib.spread(list("ab"), None) == ["a", "b"]


def test_a_model_that_cannot_fill_and_an_unknown_order_are_refused(tiny):
  causal = Model(dataclasses.replace(tiny.model.config, extra_embeddings=0, extra_names=()))
  with pytest.raises(ValueError, match="lambada fills blanks: .* Take --model=anysubset"):
    run_lib.check_model(TextModel(causal, {}, BYTES), "lambada")
  run_lib.check_model(tiny, "lambada")
  assert run_lib.free_positions(tiny) == tiny.model.config.max_position - 1
  with pytest.raises(ValueError, match="'best' is not one of lattice, .*left_to_right, max"):
    Filler(order="best")


def test_a_table_has_a_row_for_every_order(tiny, example):
  records = run_lib.run(tiny, Lambada(), [example], GREEDY)
  figures = run_lib.summary(Lambada(), records)
  table = infilling_table("lambada", {"lattice": figures, "random": figures})
  assert table.row_count == 2 and len(table.columns) == len(figures) + 1
  assert len(set(NAMES)) == 5
