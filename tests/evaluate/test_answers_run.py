"""Answering with several methods: identical texts, batches, resuming, differences and ties."""

import dataclasses
import types
from unittest import mock

import jax
import numpy as np
import pytest

from mtjax.cli import evaluate_answers
from mtjax.cli.method_names import config_of
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.answers import run as run_lib
from mtjax.evaluate.answers.methods import answering, step_lengths
from mtjax.evaluate.answers.protocol import Question
from mtjax.evaluate.answers.registry import TASKS
from mtjax.evaluate.answers.run import Answering
from mtjax.evaluate.answers.same_text import compared, differences
from mtjax.evaluate.answers.summary import summary
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.report.answers.tables import quality_table
from mtjax.text import TextModel
from mtjax.types import Exactness

NAMES = ("ar", "lookup:length=3", "suffix:size=4", "lookup:verifier=typical")
QUESTIONS = [
  Question("one", ("ab ab ab ab ab ab",)),  # padded to the size of the others
  Question("two", ("x = 1\nx = 2\nx = ", "\nand then\n")),
  Question("three", ("to be or not to be or",)),
]
HOW = Answering("text", 12, batch=2)


@dataclasses.dataclass
class Vowels:
  """A task whose answers are right if they hold an "a"; it counts how often it judges."""

  formats = ("text",)
  max_tokens = 12
  measure = "vowels"
  convention = "Own."
  judged: int = 0

  def stop(self, prompt_format):
    return ("zq",)

  def questions(self, path, prompt_format):
    return QUESTIONS

  def judge(self, question, answers):
    self.judged += 1
    return dict(right="a" in "".join(answers))


@pytest.fixture(scope="module")
def tiny():
  config = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), max_position=256)
  model = Model(config)
  return TextModel(model, model.init(jax.random.key(3)), ByteTokenizer())


def methods_of(tiny, temperature=0.0, names=NAMES):
  return answering({name: config_of(name) for name in names}, tiny, temperature=temperature)


@pytest.fixture(scope="module")
def greedy(tiny):
  return run_lib.run(tiny, Vowels(), QUESTIONS, methods_of(tiny), HOW)


def tokens(records):
  return [record["tokens"] for record in records]


def test_every_method_answers_every_question_in_order(tiny, greedy):
  assert list(greedy) == list(NAMES)
  for records in greedy.values():
    assert [record["name"] for record in records] == ["one", "two", "three"]
    assert [len(record["answers"]) for record in records] == [1, 2, 1]
    for record in records:
      for text, ids in zip(record["answers"], record["tokens"], strict=True):
        assert 1 <= len(ids) <= 12 and tiny.tokenizer.decode(ids).startswith(text)


def test_lossless_methods_write_the_same_text(tiny, greedy):
  assert tokens(greedy["ar"]) == tokens(greedy["lookup:length=3"])
  assert tokens(greedy["ar"]) == tokens(greedy["suffix:size=4"])
  assert compared(tiny, QUESTIONS, greedy, methods_of(tiny), HOW) == ([], [])
  # The texts repeat themselves, so drafts were accepted: the comparison is of different programs.
  figures = summary(Vowels(), greedy["lookup:length=3"], greedy["ar"])
  assert figures["tokens_per_forward"] > 1 and figures["same_text"] == 1


def test_a_text_depends_on_no_batch_and_on_the_seed(tiny):
  names, how = ("ar", "lookup:length=3"), dataclasses.replace(HOW, temperature=1.0)
  methods = methods_of(tiny, 1.0, names)
  two = run_lib.run(tiny, Vowels(), QUESTIONS, methods, how)
  alone = {"ar": methods["ar"]}
  three = run_lib.run(tiny, Vowels(), QUESTIONS, alone, dataclasses.replace(how, batch=3))
  assert tokens(two["ar"]) == tokens(three["ar"]) == tokens(two["lookup:length=3"])
  other = run_lib.run(tiny, Vowels(), QUESTIONS[:2], alone, dataclasses.replace(how, seed=1))
  assert tokens(other["ar"]) != tokens(two["ar"][:2])


def test_the_second_turn_continues_the_first_answer(tiny, greedy):
  record = greedy["ar"][1]
  prompt = QUESTIONS[1].turns[0] + record["answers"][0] + QUESTIONS[1].turns[1]
  completions, _ = tiny.generate([prompt], max_tokens=12, stop="zq")
  assert completions[0].tokens == record["tokens"][1]


def test_an_answer_is_judged_once_per_text(tiny):
  task = Vowels()
  run_lib.run(tiny, task, QUESTIONS, methods_of(tiny, names=NAMES[:3]), HOW)
  assert task.judged == len(QUESTIONS)


@pytest.mark.parametrize("limit", [3, 4, 5, 12])
def test_forwards_of_a_row_are_counted_from_its_drafts(tiny, limit):
  method = methods_of(tiny, names=["lookup:length=3"])["lookup:length=3"]
  _, generation = tiny.generate(
    [question.turns[0] for question in QUESTIONS],
    method=method.method,
    method_params=method.params,
    max_tokens=[limit, limit, 1],
  )
  total = sum(len(step_lengths(drafted)) for drafted in generation.drafted)
  assert total == generation.counters["target_forwards"]


def test_known_records_are_not_computed_again(tiny, greedy):
  known = [record for name in NAMES[:2] for record in greedy[name]][:4]
  new, task = [], Vowels()
  methods = methods_of(tiny, names=NAMES[:2])
  records = run_lib.run(tiny, task, QUESTIONS, methods, HOW, known=known, each=new.append)
  assert [(record["method"], record["name"]) for record in new] == [
    (NAMES[1], "three"), (NAMES[1], "two")
  ]  # fmt: skip
  assert records["ar"] == greedy["ar"] and tokens(records[NAMES[1]]) == tokens(greedy[NAMES[1]])


def changed(greedy, name):
  """Returns records in which a method wrote another token in the second turn of "two"."""
  records = {other: list(of_method) for other, of_method in greedy.items()}
  record = records[name][1]
  ids = list(record["tokens"][1])
  ids[1] = (ids[1] + 1) % 256
  records[name][1] = dict(record, tokens=[record["tokens"][0], ids])
  return records, record["tokens"][1][1], ids[1]


def test_the_first_difference_of_a_lossless_method_is_named_with_its_logits(tiny, greedy):
  records, old, new = changed(greedy, NAMES[1])
  (found,) = differences(records[NAMES[1]], records["ar"])
  assert (found.name, found.turn, found.place) == ("two", 1, 1)
  ties, (error,) = compared(tiny, QUESTIONS, records, methods_of(tiny), HOW)
  assert not ties and "two, answer 2: after 1 equal tokens ar writes token" in error
  assert f"token {old} and {NAMES[1]} writes {new}; their logits are " in error
  logits = [float(x) for x in error.rpartition("logits are ")[2].split(" and ")]
  assert logits[0] > logits[1], "greedy decoding took the larger one"
  figures = summary(Vowels(), records[NAMES[1]], records["ar"])
  assert figures["same_text"] == pytest.approx(2 / 3)
  table = quality_table("a", "vowels", {NAMES[1]: figures}, {NAMES[1]: "lossless"})
  assert table.rows[0][-1] == "66.6%" and table.header[2:4] == ("vowels", "95 % interval")
  assert len(table.rows[0]) == len(table.header)


def test_a_text_that_ends_early_is_a_difference(tiny, greedy):
  records = {name: list(of_method) for name, of_method in greedy.items()}
  record = records[NAMES[1]][0]
  records[NAMES[1]][0] = dict(record, tokens=[record["tokens"][0][:2]])
  _, (error,) = compared(tiny, QUESTIONS, records, methods_of(tiny), HOW)
  assert "after 2 equal tokens" in error and "writes None" in error


def test_a_method_that_is_not_lossless_is_shown_and_not_asserted(tiny, greedy):
  records, *_ = changed(greedy, NAMES[3])
  methods = methods_of(tiny)
  assert methods[NAMES[3]].exactness is Exactness.APPROXIMATE and not methods[NAMES[3]].same_text
  assert compared(tiny, QUESTIONS, records, methods, HOW) == ([], [])
  assert summary(Vowels(), records[NAMES[3]], records["ar"])["same_text"] == pytest.approx(2 / 3)


def test_equal_logits_are_a_tie_and_no_error(tiny, greedy):
  records, *_ = changed(greedy, NAMES[1])
  zero = dataclasses.replace(tiny, params=jax.tree.map(np.zeros_like, tiny.params))
  (tie,), errors = compared(zero, QUESTIONS, records, methods_of(tiny), HOW)
  assert not errors and tie.endswith("their logits are 0.000000 and 0.000000, a tie in float32")
  sampled = dataclasses.replace(HOW, temperature=1.0)
  ties, errors = compared(zero, QUESTIONS, records, methods_of(tiny, 1.0), sampled)
  assert not ties and len(errors) == 1, "a sampled token is not that of the largest logit"


@pytest.mark.parametrize(
  ("name", "at_zero", "at_one"),
  [
    ("ar", True, True),
    ("lookup", True, True),
    ("lookup:verifier=delta", True, False),
    ("lookup:verifier=greedy", True, False),
    ("lookup:verifier=threshold", False, False),
  ],
)
def test_which_methods_must_write_the_same_text(tiny, name, at_zero, at_one):
  for temperature, same in ((0.0, at_zero), (1.0, at_one)):
    assert methods_of(tiny, temperature, [name])[name].same_text is same


def test_answers_that_do_not_fit_are_refused_by_name(tiny):
  assert run_lib.check_lengths(tiny, QUESTIONS, HOW, "a.jsonl") == 26 + 2 * 12
  long = dataclasses.replace(HOW, max_tokens=120)
  message = "a.jsonl, two: a prompt of 26 tokens and 2 x 120 .* 256 positions"
  with pytest.raises(ValueError, match=message):
    run_lib.check_lengths(tiny, QUESTIONS, long, "a.jsonl")
  with pytest.raises(ValueError, match="at least 1"):
    Answering("text", 0)


def test_the_launcher_plans_for_the_longest_question_with_its_answers(tiny, monkeypatch):
  values = dict(METHODS=["ar"], SEED=0)
  for name in ("_MAX_TOKENS", "_PROMPT_FORMAT", "_SPEC_BENCH", "TEMPERATURE", "LIMIT"):
    values[name] = None
  for name, value in values.items():
    monkeypatch.setattr(evaluate_answers, name, types.SimpleNamespace(value=value, name=name))
  monkeypatch.setattr(evaluate_answers, "_wanted", lambda: [("vowels", "a.jsonl", {})])
  monkeypatch.setitem(TASKS, "vowels", Vowels())
  monkeypatch.setattr("mtjax.pretrained.load_pretrained", lambda *_, **__: tiny)
  monkeypatch.setattr("mtjax.pretrained.for_decoding", lambda model, _: model)
  asked = mock.Mock(side_effect=InterruptedError)
  monkeypatch.setattr("mtjax.evaluate.answers.methods.answering", asked)
  with pytest.raises(InterruptedError):
    evaluate_answers.run("tiny", "stored", 4, None, None)
  assert asked.call_args.kwargs == dict(temperature=0.0, batch=4, tokens=26 + 2 * 12)
