"""Spec-Bench: its questions, and answers that its own programs can read."""

import json

import jax
import numpy as np
import pytest

from mtjax.cli.method_names import config_of
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.answers import run as run_lib
from mtjax.evaluate.answers.methods import answering, step_lengths
from mtjax.evaluate.answers.registry import TASKS
from mtjax.evaluate.answers.run import Answering
from mtjax.evaluate.answers.specbench_file import model_identity, write_answers
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.text import TextModel

RECORDS = [
  dict(question_id=402, category="qa", turns=["ab ab ab a"], reference=["b"]),
  dict(question_id=81, category="writing", turns=["x = 1\nx = 2\nx = ", "and then x = 1"]),
]
METHODS = ("ar", "lookup:length=3")
HOW = Answering("text", 12, batch=1)


@pytest.fixture(scope="module")
def tiny():
  config = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), max_position=256)
  model = Model(config)
  return TextModel(model, model.init(jax.random.key(3)), ByteTokenizer())


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
  path = tmp_path_factory.mktemp("data") / "question.jsonl"
  path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
  return TASKS["specbench"].questions(str(path), "text")


@pytest.fixture(scope="module")
def records(tiny, questions):
  methods = answering({name: config_of(name) for name in METHODS}, tiny, temperature=0.0)
  return run_lib.run(tiny, TASKS["specbench"], questions, methods, HOW)


@pytest.fixture(scope="module")
def files(tmp_path_factory, questions, records):
  folder = tmp_path_factory.mktemp("out") / "new"
  settings = dict(model="some/tiny", temperature=0.0, timestamp=5.0)
  return write_answers(folder, questions, records, **settings)


def speed(path, category):
  """What evaluation/speed.py of Spec-Bench computes from a file, in words of our own.

  Returns the tokens per second, as the mean over questions, and all accepted lengths.
  """
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  choices = [line["choices"][0] for line in lines if category in ("overall", line["category"])]
  speeds = [sum(choice["new_tokens"]) / sum(choice["wall_time"]) for choice in choices]
  return np.mean(speeds), [n for choice in choices for n in choice["accept_lengths"]]


def test_questions_keep_ids_categories_and_all_turns(questions):
  assert [question.name for question in questions] == ["question 402", "question 81"]
  assert questions[1].about == dict(question_id=81, category="writing")
  assert questions[1].turns[1] == "\n### Human: and then x = 1\n### Assistant:"


def test_a_line_has_the_fields_of_spec_bench(files, records):
  ar, lookup = ([json.loads(line) for line in path.read_text().splitlines()] for path in files)
  assert [path.name for path in files] == [
    "tiny-ar-temp-0.jsonl",
    "tiny-lookup_length=3-temp-0.jsonl",
  ]
  fields = ["question_id", "category", "answer_id", "model_id", "choices", "tstamp"]
  of_choice = ["index", "turns", "decoding_steps", "new_tokens", "wall_time", "accept_lengths"]
  for line in (*ar, *lookup):
    assert list(line) == fields and line["tstamp"] == 5.0
    (choice,) = line["choices"]
    assert list(choice) == of_choice and choice["index"] == 0
    assert all(seconds > 0 for seconds in choice["wall_time"])
  # In the order of the ids, whatever the order of the questions.
  assert [line["question_id"] for line in lookup] == [81, 402]
  assert lookup[0]["model_id"] == "tiny-lookup_length=3-temp-0"
  assert lookup[0]["choices"][0]["turns"] == records["lookup:length=3"][1]["answers"]
  assert [len(lookup[0]["choices"][0][name]) for name in of_choice[1:5]] == [2] * 4
  assert len({line["answer_id"] for line in (*ar, *lookup)}) == 4


def test_accepted_lengths_sum_to_the_new_tokens(files, records):
  for path, name in zip(files, METHODS, strict=True):
    for line in map(json.loads, path.read_text().splitlines()):
      (choice,) = line["choices"]
      assert sum(choice["accept_lengths"]) == sum(choice["new_tokens"])
      assert len(choice["accept_lengths"]) == sum(choice["decoding_steps"])
      assert name != "ar" or set(choice["accept_lengths"]) == {1}
  assert any(max(choice) > 1 for record in records[METHODS[1]] for choice in record["steps"])


def test_speed_is_read_from_the_files(files, records):
  for category in ("overall", "qa"):
    base, ones = speed(files[0], category)
    tokens_per_second, lengths = speed(files[1], category)
    assert tokens_per_second / base > 0 and np.mean(ones) == 1
    chosen = records[METHODS[1]][: 2 if category == "overall" else 1]
    tokens = sum(len(turn) for record in chosen for turn in record["tokens"])
    assert np.mean(lengths) == tokens / sum(record["forwards"] for record in chosen)


@pytest.mark.parametrize("limit", [3, 4, 5, 12])
def test_step_lengths_are_those_of_the_rounds(tiny, limit):
  """The history records what each round emitted; the prompt's pass emits one token."""
  method = answering({"lookup": config_of("lookup:length=3")}, tiny, temperature=0.0)["lookup"]
  _, generation = tiny.generate(
    ["ab ab ab a"], method=method.method, method_params=method.params, max_tokens=limit,
    history=True,
  )  # fmt: skip
  expected = [len(record.rows[0].emitted) for record in generation.history if record.rows[0]]
  assert step_lengths(generation.drafted[0]) == expected


def test_names_of_models_become_names_of_files():
  assert model_identity("/a/b.gguf", "lookup:length=5", 0.7) == "b.gguf-lookup_length=5-temp-0.7"


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    (dict(question_id="81"), 'line 1: "question_id" must be a whole number'),
    (dict(question_id=True), 'line 1: "question_id" must be a whole number'),
    (dict(turns=[1]), 'line 1: "turns" must be a list of texts'),
    (None, "line 2: there are two questions 402"),
  ],
)
def test_other_files_are_refused_with_the_line(tmp_path, changed, message):
  path = tmp_path / "q.jsonl"
  lines = [RECORDS[0]] * 2 if changed is None else [RECORDS[0] | changed]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  with pytest.raises(ValueError, match=message):
    TASKS["specbench"].questions(str(path), "chat")
