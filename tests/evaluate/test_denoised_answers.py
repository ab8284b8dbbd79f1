"""Answers of denoising methods: their names, their cost, stop strings, quality, and MBPP."""

import json

import jax
import pytest

from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.answers import run as run_lib
from mtjax.evaluate.answers.code.mbpp import Mbpp
from mtjax.evaluate.answers.denoising import denoise_only, denoising_method
from mtjax.evaluate.answers.methods import cut
from mtjax.evaluate.answers.protocol import Question
from mtjax.evaluate.answers.run import Answering
from mtjax.evaluate.answers.summary import summary
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.report.answers.tables import quality_table
from mtjax.text import TextModel

QUESTIONS = [Question("one", ("ab ab",)), Question("two", ("x = 1",)), Question("three", ("q",))]
NAME = "llada:length=8:block_length=8:steps=4"


def tiny(**changes):
  config = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), max_position=64, **changes)
  model = Model(config)
  return TextModel(model, model.init(jax.random.key(3)), ByteTokenizer())


class Shown:
  """A task without a score."""

  formats, max_tokens, measure, convention = ("text",), 8, None, "Own."

  def stop(self, prompt_format):
    return ()

  def questions(self, path, prompt_format):
    return QUESTIONS

  def judge(self, question, answers):
    return {}


def test_settings_of_the_method_of_its_rules_and_of_sampling_are_told_apart():
  method = denoising_method(
    "llada:transfer=threshold:threshold=0.7:steps=8:temperature=0.5", max_tokens=32
  )
  assert method.denoiser.transfer == "threshold:threshold=0.7"
  assert (method.denoiser.length, method.denoiser.steps) == (32, 8)
  assert method.sampling == dict(temperature=0.5)
  # As many tokens per pass as by default, on a canvas of another length.
  assert denoising_method("llada", max_tokens=256).denoiser.steps == 128
  assert denoising_method("dream", temperature=0.0).sampling == dict(temperature=0.0, top_p=0.95)
  with pytest.raises(ValueError, match="blocks_length"):
    denoising_method("llada:blocks_length=8")


def test_methods_are_of_one_kind():
  assert denoise_only(["llada", "dream:steps=8"]) and not denoise_only(["ar", "lookup"])
  with pytest.raises(ValueError, match="lookup decodes with a causal model"):
    denoise_only(["llada", "lookup"])
  with pytest.raises(ValueError, match="lacks ar"):
    denoise_only(["lookup"])


def test_an_answer_ends_before_its_first_stop_string():
  assert cut("a b\ndef c\nclass", ("\nclass", "\ndef"), "length") == ("a b", "stop")
  assert cut("a b", ("\nclass",), "eos") == ("a b", "eos")


def test_answers_cost_their_passes_and_are_judged_with_their_entropy():
  model = tiny(predicts="masked", extra_embeddings=1, extra_names=("mask",))
  methods, how = {NAME: denoising_method(NAME)}, Answering("text", 8, batch=2)
  records = run_lib.run(model, Shown(), QUESTIONS, methods, how, judge=tiny())[NAME]
  for record in records:
    assert record["forwards"] == 4 and sum(record["steps"][0]) == len(record["tokens"][0]) <= 8
  figures = summary(Shown(), records, records)
  assert figures["same_text"] == 1 and figures["entropy"] is not None
  assert figures["tokens_per_forward"] == pytest.approx(figures["tokens"] / 4)
  table = quality_table("a", None, {NAME: figures}, {NAME: "approximate"}, reference=NAME)
  assert table.header[-2:] == ("gen. perplexity", "entropy") and NAME in table.header[-3]
  assert len(table.rows[0]) == len(table.header)
  alone = run_lib.run(model, Shown(), QUESTIONS[:1], methods, Answering("text", 8, batch=1))[NAME]
  assert alone[0]["tokens"] == records[0]["tokens"], "a text does not depend on its batch"


def test_a_canvas_that_exceeds_the_model_is_refused_by_name():
  long, how = denoising_method("llada:length=64"), Answering("text", 8)
  with pytest.raises(ValueError, match="a.jsonl, one: a prompt of 5 tokens and 1 x 64 tokens"):
    run_lib.check_lengths(tiny(), QUESTIONS, how, "a.jsonl", [long])


RECORD = dict(
  text="Write a function that adds.", code="def add(a, b):\n  return a + b", task_id=7,
  test_list=["assert add(1, 2) == 3", "assert one == 1"], test_setup_code="one = 1",
)  # fmt: skip


def test_mbpp_runs_its_tests_after_its_setup(tmp_path):
  path = tmp_path / "mbpp.jsonl"
  sanitised = {
    key: value for key, value in RECORD.items() if key not in ("text", "test_setup_code")
  }
  sanitised |= dict(prompt="Add.", test_imports=["one = 1"], task_id=8)
  path.write_text(json.dumps(RECORD) + "\n" + json.dumps(sanitised) + "\n")
  first, second = Mbpp().questions(str(path), "text")
  assert (first.name, second.name) == ("MBPP/7", "MBPP/8")
  assert first.turns[0].endswith("== 3\nassert one == 1\n[BEGIN]\n") and "Add." in second.turns[0]
  for question in (first, second):
    assert Mbpp().judge(question, [RECORD["code"]])["right"]
    assert not Mbpp().judge(question, ["def add(a, b):\n  return a - b"])["right"]
  (chat, _) = Mbpp().questions(str(path), "chat")
  assert chat.begun == "```python\n" and "[BEGIN]" not in chat.turns[0]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(test_list="assert"), 'line 1: "test_list" must be a list'),
    (dict(text=3), "no sentence"),
    (dict(test_setup_code=3), "the setup must be"),
  ],
)
def test_other_records_are_refused(tmp_path, change, message):
  path = tmp_path / "mbpp.jsonl"
  path.write_text(json.dumps(RECORD | change) + "\n")
  with pytest.raises(ValueError, match=message):
    Mbpp().questions(str(path), "text")
