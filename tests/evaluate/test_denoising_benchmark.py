"""The benchmark of denoising: what it counts, compares and refuses, on tiny models."""

import dataclasses
import math

import pytest

from mtjax.bench.diffusion.bookkeeping import pass_time
from mtjax.bench.diffusion.cases import CACHES, ONE_BLOCK, bidirectional_cases, block_cases
from mtjax.bench.diffusion.long import long_texts
from mtjax.bench.diffusion.machines import guided_cases, machine_cases, with_references
from mtjax.bench.diffusion.methods import (
  CaseRunner,
  DenoisingCase,
  DenoisingResult,
  error_of,
  measure,
)
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.diffusion.texts import network_of
from mtjax.evaluate.generative import JudgedText, TextQuality
from mtjax.evaluate.prompt_windows import windows_of
from mtjax.pretrained import DEMO_PROMPTS, load_pretrained
from mtjax.registry.denoising.adaptive import AdaptiveDenoiser
from mtjax.registry.denoising.denoiser import BlockDenoiser, Denoiser
from mtjax.registry.denoising.methods import denoiser
from mtjax.registry.denoising.rules import GUIDANCE, MACHINES
from mtjax.report import results
from mtjax.report.diffusion.methods import methods_table
from mtjax.sampling.logits import Sampling
from tests import tiny_model
from tests.forked import launch

PROMPTS = [[5, 6, 7, 8]] * 2
ONE = Denoiser(8, 4, 8, "sampled_probability")


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
  return load_pretrained(str(tiny_model.save(tmp_path_factory.mktemp("m"), **tiny_model.MASKED)))


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
  return load_pretrained(str(tiny_model.save(tmp_path_factory.mktemp("j"))))


def test_tokens_per_forward_quality_and_times_of_each_case(masked, judge):
  cases = [
    DenoisingCase("one", ONE, 1.0, "one"),
    DenoisingCase("two", dataclasses.replace(ONE, steps=4), 1.0, "one"),
  ]
  one, two = measure(masked, judge, cases, PROMPTS, batches=[1, 2], rounds=1)
  assert (one.tokens_per_forward, two.tokens_per_forward) == (1, 2)
  assert one.quality.texts == 2 and one.quality.bits_per_byte > 0
  assert one.speed_up == {1: 1, 2: 1} and set(two.seconds) == {1, 2}


@pytest.mark.parametrize(
  ("reference", "batches", "message"),
  [("other", [1], "the reference 'other' of 'one' is none"), ("one", [3], "a multiple of .* 3")],
)
def test_wrong_comparisons_are_refused(masked, judge, reference, batches, message):
  with pytest.raises(ValueError, match=message):
    case = DenoisingCase("one", ONE, 0.0, reference)
    measure(masked, judge, [case], PROMPTS, batches=batches, rounds=1)


@pytest.mark.parametrize(
  ("bits", "entropy", "kept"), [(2.01, 4, True), (2.03, 4, False), (1.5, 3.9, False)]
)
def test_a_text_is_as_good_only_if_it_is_as_varied(bits, entropy, kept):
  def result(bits, entropy):
    quality = TextQuality(1, 1.0, bits, entropy)
    return DenoisingResult(DenoisingCase("x", ONE, 0.0, "x"), 1.0, quality, 0.0, {}, {})

  assert result(bits, entropy).keeps(result(2.0, 4.0)) is kept


def test_the_error_is_that_of_the_mean_where_texts_are_equally_long():
  judged = [JudgedText(nats, 4, 8, 1.0) for nats in (1.0, 2.0, 6.0)]
  # Deviations from the mean, 3: -2, -1 and 3; variance 7.
  expected = math.sqrt(7 / 3) / 8 / math.log(2)
  assert error_of(judged) == pytest.approx(expected)


def test_decisions_are_a_part_of_a_pass(masked):
  spent = pass_time(network_of(masked), masked.params, PROMPTS[:1], ONE, rounds=1)
  assert spent.whole > 0 and spent.decisions > 0


def test_a_long_text_is_the_same_with_its_cache(tmp_path):
  text = load_pretrained(str(tiny_model.save(tmp_path, **tiny_model.MASKED, block_length=4)))
  done = long_texts(text, PROMPTS[0], length=8, rounds=1)
  assert done.same == {"none": 1, "exact": 1} and done.ratio("none") == 1


def test_every_cache_of_bidirectional_models_is_compared():
  cases = bidirectional_cases(32, 8)
  names = {case.name for case in cases}
  assert {case.denoiser.cache for case in cases} == {"none", *CACHES}
  assert {case.reference for case in cases + block_cases(32)} <= names | {
    case.name for case in block_cases(32)
  }


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
  folder = tiny_model.save(tmp_path_factory.mktemp("b"), **tiny_model.MASKED, block_length=8)
  return load_pretrained(str(folder))


def test_a_machine_and_a_reference_by_the_rules_are_measured_alike(blocks, judge):
  cases, refused = machine_cases(16, blocks)
  cases = with_references(cases, ["pipeline"])
  assert [case.name for case in cases] == [ONE_BLOCK, "pipeline"]
  one, machine = measure(blocks, judge, cases, [[5, 6, 7, 8] * 2] * 2, batches=[2], rounds=1)
  assert one.tokens_per_forward == 1 and 0 < machine.tokens_per_forward <= 16
  assert machine.seconds[2] > 0 and machine.speed_up[2] == one.seconds[2] / machine.seconds[2]
  table = methods_table("b", [one, machine])
  assert [(row[0], row[1], row[2]) for row in table.rows] == [
    (ONE_BLOCK, "exact", "1.00"),
    ("pipeline", "-", f"{machine.tokens_per_forward:.2f}"),
  ]
  assert [row[5] for row in table.rows] == ["-", "yes" if machine.keeps(one) else "no"]
  (reason,) = refused
  assert reason.startswith("sub-blocks: not measured") and "needs a network with shifted" in reason


def test_a_case_writes_the_text_of_its_method_past_end_tokens(masked, judge):
  method = denoiser("apd", length=8, parallel=4, causal=judge)
  run = CaseRunner(masked)(DenoisingCase("apd", method, 1.0, "apd"), PROMPTS, seed=3)
  sampling = Sampling(temperature=1.0)
  _, plain = masked.denoise(PROMPTS, method=method, sampling=sampling, key=3, eos=())
  assert run.tokens == plain.tokens and [len(row) for row in run.tokens] == [8, 8]


def test_every_machine_and_kind_of_guidance_is_compared(tmp_path):
  settings = dict(tiny_model.MASKED, block_length=8, alignment="shifted")
  shifted = load_pretrained(str(tiny_model.save(tmp_path, **settings)))
  machines, refused = machine_cases(64, shifted)
  assert not refused
  spelled = [case.denoiser.machine for case in machines if isinstance(case.denoiser, BlockDenoiser)]
  assert {machine.split(":")[0] for machine in spelled} == set(MACHINES)
  guided = guided_cases(64, 32, ["target", "draft"])
  rules = [case.denoiser for case in guided if isinstance(case.denoiser, Denoiser)]
  assert {one.guidance.split(":")[0] for one in rules} == set(GUIDANCE)
  assert {one.lookahead for one in rules} == {0, 1, 3}
  assert sum(isinstance(case.denoiser, AdaptiveDenoiser) for case in guided) == 4
  for cases in (machines, guided):
    by_name = {case.name: case for case in cases}
    assert len(by_name) == len(cases)
    for case in cases:
      reference = by_name[case.reference]
      assert isinstance(reference.denoiser, Denoiser) and reference.denoiser.steps == 64
      assert (reference.reference, reference.temperature) == (reference.name, case.temperature)


def test_the_launcher_measures_the_methods_that_are_named(tmp_path):
  for name, settings in (("m", tiny_model.MASKED), ("c", {})):
    tiny_model.save(tmp_path / name, **settings)
  path, command = tmp_path / "x.json", ("experiments.diffusion.machines", "--block_model=")
  command += (f"--model={tmp_path}/m", f"--judge={tmp_path}/c", f"--causal={tmp_path}/c")
  command += ("--prompts=2", "--prompt_tokens=4", "--length=4", "--block_length=4", "--rounds=1")
  command += ("--batches=2", f"--results={path}")
  code, shown, errors = launch(*command, "--case=lookahead 3")
  assert code == 0 and "lookahead 3" in shown, errors
  record = results.read(path)
  one, ahead = record["rows"][f"{tmp_path}/m"]
  assert one["tokens_per_forward"] == 1 <= ahead["tokens_per_forward"] and record["complete"]
  assert ahead["quality"] == one["quality"], "the same texts"
  assert ahead["case"]["denoiser"]["lookahead"] == 3
  for flags, message in (
    ("--case=nothing", "--case: 'nothing' is none of: one per pass; "),
    ("--causal=a,b,c", "--causal: at most two models, got 3"),
  ):
    code, _, errors = launch(*command, flags)
    assert code == 2 and message in errors


def test_what_the_public_sampler_needs_is_checked_before_it_runs(tmp_path):
  masked = tiny_model.save(tmp_path / "masked", **tiny_model.MASKED)
  (tmp_path / "generate.py").write_text("")
  command = ("experiments.diffusion.public_sampler", f"--model={masked}", "--prompts=2")
  code, _, errors = launch(*command, f"--llada={tmp_path}/none.py", "--batches=1")
  assert code == 2 and "there is no script" in errors and "generate.py of LLaDA's authors" in errors
  code, _, errors = launch(*command, f"--llada={tmp_path}/generate.py", "--batches=1,3")
  assert code == 2 and "a batch of 3 needs as many prompts, and there are 2" in errors


def test_windows_of_the_demo_are_prompts_of_one_length_at_different_places():
  tokenizer = BpeTokenizer.bundled()
  windows = windows_of(None, tokenizer, count=3, length=500)
  assert [len(window) for window in windows] == [500] * 3
  text = [token for prompt in DEMO_PROMPTS for token in tokenizer.encode(prompt)]
  assert (
    len(text) < 500 and windows[0][: len(text)] == text == windows[0][len(text) : 2 * len(text)]
  )
  assert windows[1] != windows[0]
  assert windows[1][:100] == windows[0][7:107]
