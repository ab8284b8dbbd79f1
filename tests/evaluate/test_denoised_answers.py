"""Answers of denoising methods: their names, their cost, stop strings, quality, and MBPP."""

import json

import jax
import pytest

import mtjax
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.answers import run as run_lib
from mtjax.evaluate.answers.code.mbpp import Mbpp
from mtjax.evaluate.answers.denoising import DenoisingMethod, denoise_only
from mtjax.evaluate.answers.methods import cut
from mtjax.evaluate.answers.protocol import Question
from mtjax.evaluate.answers.run import Answering
from mtjax.evaluate.answers.summary import summary
from mtjax.evaluate.generative import TextQuality, judge_texts
from mtjax.evaluate.samples import read_samples
from mtjax.models import CanvasLayer, DiffusionGemmaConfig, Model, TransformerConfig, uniform_layers
from mtjax.registry.denoising.spelled import model_of, spelled_denoiser
from mtjax.report.answers.tables import quality_table
from mtjax.text import TextModel

QUESTIONS = [Question("one", ("ab ab",)), Question("two", ("x = 1",)), Question("three", ("q",))]
NAME = "llada:length=8:block_length=8:steps=4"


def denoising_method(spelling, **settings):
  return DenoisingMethod.of(spelled_denoiser(spelling, **settings))


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
    "llada:transfer=threshold:threshold=0.7:steps=8:temperature=0.5", length=32
  )
  assert method.denoiser.transfer == "threshold:threshold=0.7"
  assert (method.denoiser.length, method.denoiser.steps) == (32, 8)
  assert method.sampling == dict(temperature=0.5)
  # As many tokens per pass as by default, on a canvas of another length.
  assert denoising_method("llada", length=256).denoiser.steps == 128
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


def test_answers_cost_their_passes_and_are_judged_with_their_entropy(tmp_path):
  model = tiny(predicts="masked", extra_embeddings=1, extra_names=("mask",))
  methods, how = {NAME: denoising_method(NAME)}, Answering("text", 8, batch=2)
  records = run_lib.run(model, Shown(), QUESTIONS, methods, how, judge=tiny())[NAME]
  for record in records:
    assert record["forwards"] == 4 and sum(record["steps"][0]) == len(record["tokens"][0]) <= 8
  figures = summary(Shown(), records, records)
  assert figures["same_text"] == 1 and figures["entropy"] is not None
  # Records that are judged later have the same figures: the questions are in them.
  path = tmp_path / "answers.jsonl"
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  (samples,) = read_samples(path).values()
  assert [one.prompt for one in samples] == [one.turns[0] for one in QUESTIONS]
  judged = judge_texts(tiny(), [one.text for one in samples], [one.prompt for one in samples])
  quality = TextQuality.of(judged)
  assert figures["perplexity"] == pytest.approx(quality.perplexity, rel=1e-5)
  assert figures["entropy"] == pytest.approx(quality.entropy)
  assert figures["tokens_per_forward"] == pytest.approx(figures["tokens"] / 4)
  table = quality_table("a", None, {NAME: figures}, {NAME: "approximate"}, reference=NAME)
  assert table.header[-2:] == ("gen. perplexity", "entropy") and NAME in table.header[-3]
  assert len(table.rows[0]) == len(table.header)
  alone = run_lib.run(model, Shown(), QUESTIONS[:1], methods, Answering("text", 8, batch=1))[NAME]
  assert alone[0]["tokens"] == records[0]["tokens"], "a text does not depend on its batch"


MASKED = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",))
BLOCKS = MASKED | dict(block_length=4)
FILLS = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))


def gemma():
  config = DiffusionGemmaConfig(
    vocab_size=258, dim=16, heads=2, mlp_dim=16, experts=2, top_experts=1, expert_dim=8,
    layers=(CanvasLayer(1, 8),), canvas_length=4, max_position=64,
  )  # fmt: skip
  model = Model(config)
  return TextModel(model, model.init(jax.random.key(3)), ByteTokenizer())


@pytest.mark.parametrize(
  ("name", "make"),
  [
    ("d2f", lambda: tiny(**BLOCKS)),
    pytest.param("multi_bd", lambda: tiny(**BLOCKS), marks=pytest.mark.slow),
    pytest.param("dmax", lambda: tiny(**BLOCKS), marks=pytest.mark.slow),
    ("fast_dllm_v2:machine=sub_blocks:sub_block=2", lambda: tiny(**BLOCKS, alignment="shifted")),
    ("gidd:steps=2", lambda: tiny(**MASKED, noise="hybrid")),
    ("diffusion_gemma:steps=2", gemma),
    ("set:fill=window:size=2", lambda: tiny(**FILLS)),
    ("lookahead:block_length=8:lookahead=1", lambda: tiny(**MASKED)),
  ],
)
def test_every_kind_of_method_answers_with_what_it_denoises(name, make):
  """Machines, uniform canvases, any-subset models and lookahead, with the forwards they need."""
  model, method = make(), denoising_method(name, length=8)
  method.denoiser.check(model)
  questions, how = QUESTIONS[:2], Answering("text", 8, batch=2)
  records = run_lib.run(model, Shown(), questions, {name: method}, how)[name]
  key = run_lib._keys(how.seed, 0, [question.name for question in questions])
  prompts = [list(question.turns[0].encode()) for question in questions]
  _, run = model.denoise(prompts, method=method.denoiser, key=key)
  assert [record["tokens"] for record in records] == [[tokens] for tokens in run.tokens]
  assert sum(record["forwards"] for record in records) == run.counters["forwards"] > 0
  for record, decided in zip(records, run.decided_at, strict=True):
    # Tokens that stood before the first pass over a uniform canvas and never changed have none.
    assert sum(record["steps"][0]) == sum(number > 0 for number in decided)
  figures = summary(Shown(), records, records)
  assert figures["tokens_per_forward"] == pytest.approx(run.counters["tokens_per_forward"])


def test_names_of_all_kinds_have_the_settings_of_their_kind():
  made = spelled_denoiser("d2f:machine=pipeline:add=0.5:temperature=0.3:length=16")
  assert made.denoiser == mtjax.denoiser("d2f", machine="pipeline:add=0.5", length=16)
  assert made.sampling == dict(temperature=0.3) and made.model == "block"
  # The temperature of uniform canvases is their rule's, and steps are those of each canvas.
  made = spelled_denoiser("gidd:rule=gidd:temperature=0.5", length=128)
  assert made.denoiser == mtjax.denoiser("gidd", rule="gidd:temperature=0.5", length=128)
  for spelling, temperature in (("gidd:temperature=0.5", None), ("diffusion_gemma", 0.5)):
    with pytest.raises(ValueError, match="temperature of .* is a setting of its rule: leave"):
      spelled_denoiser(spelling, temperature=temperature)
  with pytest.raises(ValueError, match="d2f, has no setting steps; it has: length, machine"):
    spelled_denoiser("d2f:steps=4")
  for wrong in ("abc", "True", "8.0"):
    with pytest.raises(ValueError, match=f"length must be a whole number, got '?{wrong}"):
      spelled_denoiser(f"llada:length={wrong}")
  made = spelled_denoiser("set:fill=window:size=2:threshold=0.5", length=8)
  assert made.denoiser == mtjax.denoiser("set", fill="window:size=2:threshold=0.5", length=8)


def test_the_bundled_model_is_that_of_all_methods():
  def model(*names):
    return model_of([spelled_denoiser(name) for name in names])

  assert model("llada", "dream:steps=16") == "masked" and model("set") == "anysubset"
  with pytest.raises(
    ValueError, match=r"several models \(llada on masked, d2f on block\): give --mo"
  ):
    model("llada", "d2f")
  with pytest.raises(ValueError, match="no model is bundled for gidd: give a DiffusionGemma, or"):
    model("gidd")


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
