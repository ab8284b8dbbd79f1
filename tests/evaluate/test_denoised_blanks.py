"""Methods of denoising that fill the blanks of tasks: records, judges, models and refusals."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import mtjax
from mtjax.anysubset import fill, make_canvas
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.diffusion.denoising import Denoised, denoise
from mtjax.diffusion.plan import BlockPlan
from mtjax.diffusion.texts import network_of
from mtjax.evaluate.tasks import run as run_lib
from mtjax.evaluate.tasks.denoising import DenoisingFiller
from mtjax.evaluate.tasks.examples import from_pieces
from mtjax.evaluate.tasks.humaneval import HumanEvalInfilling
from mtjax.evaluate.tasks.lambada import Lambada
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.registry.denoising.spelled import spelled_denoiser
from mtjax.report.infilling_tables import infilling_table
from mtjax.text import TextModel

BYTES = ByteTokenizer()
PIECES = [("def f", False), ("(x)", True), (": y", False), ("z", True), ("!", False)]
MASKED = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",))
FILLS = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))


@dataclasses.dataclass(frozen=True)
class Shown:
  """A task that records what its judge receives."""

  temperature = 0.0

  def judge(self, example, answer):
    return dict(tokens_seen=list(answer.tokens), blank=answer.blank)

  def summary(self, records):
    return {}


def tiny(**fields):
  config = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), max_position=32, **fields)
  model = Model(config)
  return TextModel(model, jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0))), BYTES)


@pytest.fixture(scope="module")
def masked():
  return tiny(**MASKED)


@pytest.fixture(scope="module")
def example():
  return from_pieces("one", PIECES, BYTES)


def filler(spelling, seed=0):
  return DenoisingFiller.of(spelled_denoiser(spelling), seed)


LLADA = "llada:length=8:block_length=8:steps=4"


def test_a_masked_model_fills_blanks_given_both_sides_at_the_cost_of_its_passes(masked, example):
  (record,) = run_lib.run(masked, Shown(), [example], filler(LLADA))
  seen, is_target = np.array(record["tokens_seen"]), np.array(example.is_target)
  assert (seen[~is_target] == np.array(example.tokens)[~is_target]).all()
  # Four tokens by two per pass.
  assert record["filled"] == record["tokens"] == 4 and record["forwards"] == 2
  assert record["order"] == LLADA and record["nats"] is None and not record["exact"]
  network = network_of(masked)
  run = denoise(
    network,
    masked.params,
    [example.tokens],
    is_target=[is_target],
    plan=BlockPlan(8, 8, 2),
    policy=mtjax.denoiser("llada").policy,
  )
  assert seen[is_target].tolist() == run.tokens[0]
  other = from_pieces("two", [*PIECES[:4], ("?", False)], BYTES)
  same = dataclasses.replace(example, tokens=tuple(seen.tolist()))
  records = run_lib.run(masked, Shown(), [same, other], filler(LLADA), known=[record])
  assert records[0] == record, "a record of an earlier run is not computed again"
  again, _ = run_lib.run(masked, Shown(), [same, other], filler(LLADA))
  assert again["exact"] and run_lib.summary(Shown(), [again])["tokens_per_forward"] == 2


def test_samples_depend_on_seed_and_name_only(masked, example):
  noisy = "first_hitting:length=8:steps=8"
  second = dataclasses.replace(example, name="two")
  a, b = run_lib.run(masked, Shown(), [example, second], filler(noisy))
  (again,) = run_lib.run(masked, Shown(), [second], filler(noisy))
  assert again == b and a["tokens_seen"] != b["tokens_seen"] and a["forwards"] == 4
  (other,) = run_lib.run(masked, Shown(), [second], filler(noisy, seed=1))
  assert other["tokens_seen"] != b["tokens_seen"]


def test_a_block_causal_model_makes_a_pass_over_each_of_its_blocks(example):
  model = tiny(**MASKED, block_length=4)
  (record,) = run_lib.run(model, Shown(), [example], filler("block:transfer=one_by_one"))
  seen, is_target = np.array(record["tokens_seen"]), np.array(example.is_target)
  assert (seen[~is_target] == np.array(example.tokens)[~is_target]).all()
  # Targets 5, 6, 7 are in block 1, and target 11 is in block 2.
  assert record["forwards"] == 4 and record["filled"] == 4


def test_an_any_subset_model_fills_with_its_masks(example):
  model, method = tiny(**FILLS), "set:fill=window:size=4:threshold=0.05"
  (record,) = run_lib.run(model, Shown(), [example], filler(method))
  chosen = filler(method)
  canvas = make_canvas(
    model.model.config, np.array([example.tokens]), np.array([example.is_target])
  )
  done = fill(model.model, model.params, canvas, method=chosen.denoiser.filling)
  assert record["tokens_seen"] == done.token[0, 1:].tolist()
  assert record["forwards"] == int(done.forwards[0]) <= 4
  ragged = [example.tokens, example.tokens[:9]]
  is_target = [example.is_target, example.is_target[:9]]
  run = chosen.denoiser.fill_blanks(model, ragged, is_target)
  assert run.tokens[0] == done.token[0, 1:][np.array(example.is_target)].tolist()
  assert [len(row) for row in run.tokens] == [4, 3]


PROBLEM = dict(
  task_id="add", prompt="def add(a, b):\n  return ", canonical_solution="a + b", suffix="\n",
  test="def check(f):\n  assert f(2, 3) == 5\n", entry_point="add",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Scripted:
  """A method that fills every blank with one text."""

  text: str
  fills_blanks = True

  def fill_blanks(self, target, texts, is_target, *, sampling, key):
    tokens, one = [list(self.text.encode())], np.ones(1, int)
    return Denoised(tokens, [[1] * len(tokens[0])], one, one, counters={})


def test_a_filled_function_is_right_if_it_passes_its_tests(tmp_path):
  path = tmp_path / "problems.jsonl"
  path.write_text(json.dumps(PROBLEM) + "\n")
  task = HumanEvalInfilling()
  examples = task.examples(str(path), BYTES, max_tokens=255)
  model = TextModel(tiny(**MASKED).model, {}, BYTES)
  figures = {}
  for text in ("b + a", "a - b"):
    method = DenoisingFiller(text, Scripted(text), {})
    records = run_lib.run(model, task, examples, method)
    assert records[0]["reference"] == "passed" and records[0]["answer"] == text
    figures[text] = run_lib.summary(task, records)
  assert figures["b + a"]["pass_at_1"] == 1 and figures["a - b"]["pass_at_1"] == 0
  table = infilling_table("humaneval_infilling", figures, of="method")
  assert table.header[0] == "method" and "pass@1" in table.header
  assert [row[0] for row in table.rows] == ["b + a", "a - b"]


def test_methods_and_models_that_do_not_fill_are_refused(masked):
  with pytest.raises(ValueError, match="d2f continues prompts .* fills no blanks; these .* llada"):
    filler("d2f")
  with pytest.raises(ValueError, match="llada22 continues prompts .* fills no blanks"):
    filler("llada22")
  for name in ("apd", "gidd", "diffusion_gemma", "multi_bd"):
    with pytest.raises(ValueError, match="fills no blanks"):
      filler(name)
    with pytest.raises(ValueError, match="continues prompts, and fills no blanks"):
      mtjax.denoiser(name).fill_blanks(masked, [[1]], [[True]])
  with pytest.raises(ValueError, match="lambada with block: only a block-causal model has an exa"):
    filler("block").check(masked, "lambada")
  with pytest.raises(ValueError, match="lambada with set: .* needs an any-subset model"):
    filler("set").check(masked, "lambada")
  with pytest.raises(ValueError, match="row 0 has no target"):
    filler("llada").denoiser.fill_blanks(masked, [[1, 2]], [[False, False]])
  filler("llada").check(masked, "lambada")


@pytest.mark.parametrize("name", ["llada", "set"])
@pytest.mark.parametrize(
  ("texts", "targets", "message"),
  [
    ([], [], "there is no text: give at least one"),
    ([[1, 2], [3, 4]], [[True, False]], "is_target has 1 rows for 2 texts: give one each"),
    ([[1, 2], [3]], [[True, False], [True, True]], "row 1 has 1 tokens and 2 flags of is_target"),
  ],
)
def test_targets_that_do_not_fit_the_texts_are_refused_in_these_words(
  masked, name, texts, targets, message
):
  model = masked if name == "llada" else tiny(**FILLS)
  with pytest.raises(ValueError, match=message):
    filler(name).denoiser.fill_blanks(model, texts, targets)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(order="position_calibrated:frequencies=bundled"), "this model has 258"),
    (dict(revise="levenshtein", transfer="threshold"), "Levenshtein needs delete_id"),
  ],
)
def test_a_check_refuses_a_model_whose_tokens_a_rule_does_not_know(masked, settings, message):
  with pytest.raises(ValueError, match=message):
    mtjax.denoiser("llada", **settings).check(masked)


def test_a_table_of_methods_has_no_likelihood(masked, example):
  records = run_lib.run(masked, Lambada(), [example], filler(LLADA))
  figures = run_lib.summary(Lambada(), records)
  assert figures["nats"] is None
  assert infilling_table("lambada", {LLADA: figures}).rows[0][2] == ""
