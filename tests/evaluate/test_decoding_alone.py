"""Decoding alone in the speculative benchmark: when first tokens are there, and invented times."""

import contextlib
import types

import jax
import pytest

from mtjax import checkpoints
from mtjax.bench import speculative
from mtjax.bench.speculative import PromptSet, Results, SystemResult, compare_sets
from mtjax.bench.systems import SystemText, WorkerJob, mtjax_method, transformers_assisted
from mtjax.bench.targets.chat import DRAFT_FREE, chat_targets, draft_free
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.registry.methods import METHODS
from mtjax.report.speed.tables import speed_rows, speed_tables

ALONE = ", decoding alone"


def made(decoding, temperature=0.0):
  """Returns results: one round, one prompt of 5 tokens, the first after 1 s, the others in these s.

  decoding: the seconds by system and set; None for a system that does not say when its first token
  was there, whose call takes 3 s.
  """
  text, first = [[[1, 2, 3, 4, 5]]], ([[1.0]], [[1]])
  return [
    SystemResult(name, where, temperature, [[3.0]], text, [[3]], [[None]])
    if s is None
    else SystemResult(name, where, temperature, [[1 + s]], text, [[3]], [[None]], *first)
    for name, sets in decoding.items()
    for where, s in sets.items()
  ]


def test_what_comes_after_the_first_tokens_has_their_time_and_their_forward_taken_off():
  one = SystemResult(
    "a", "s", 0.0, [[3.0, 2.0]], [[[1, 2, 3, 4], [5, 6, 7]]], [[3, 2]], [[None] * 2],
    [[1.0, 0.5]], [[1, 2]],
  )  # fmt: skip
  alone = one.after_first()
  assert (alone.seconds, alone.tokens, alone.forwards) == (
    [[2.0, 1.5]],
    [[[2, 3, 4], [7]]],
    [[2, 1]],
  )
  # 4 tokens in 3.5 s and 3 forwards; 7 in 5 s and 5 forwards with the prompts.
  assert alone.seconds_per_token == [3.5 / 4] and alone.tokens_per_forward == 4 / 3
  assert one.seconds_per_token == [5 / 7] and one.tokens_per_forward == 7 / 5
  assert one.first_totals == [1.5] and alone.after_first() is None


@pytest.mark.parametrize(
  ("seconds", "counts"),
  [
    (None, None),  # files that were written before these were measured
    ([[None, None], [None, None]], [[None, None], [None, None]]),
    ([[1.0, 1.0], [1.0, 1.0]], [[1, 1], [2, 1]]),  # the second round has nothing after them
  ],
)
def test_decoding_alone_is_not_known_without_times_or_tokens(seconds, counts):
  rounds = [[[1, 2], [3]], [[1, 2], [3]]]
  times = [[2.0, 1.0]] * 2
  one = SystemResult("a", "s", 0.0, times, rounds, [[2, 1]] * 2, [[None] * 2] * 2, seconds, counts)
  assert one.after_first() is None and one.speed_up(one) == 1.0
  (table, *_) = speed_tables([one], "a", targets=lambda _: [])
  assert table.rows and not Results([one], 0.0).decoding_alone.systems
  (row,) = speed_rows([one], "a")
  assert {key: row[key] for key in row if "decoding" in key or "first" in key} == dict(
    first_seconds=None, decoding_tokens_per_second=None, decoding_speed_up=None
  )


def test_a_table_of_decoding_alone_stands_beside_that_of_whole_calls():
  times = {
    "mtjax:ar": dict(editing=4.0, toolcall=4.0),
    "mtjax:lookup": dict(editing=1.0, toolcall=2.0),
    "peer": dict(editing=8.0),
    "silent": dict(editing=None, toolcall=None),
  }
  results = made(times) + made(times, 0.7)
  greedy, alone, other, *rest = speed_tables(results, "mtjax:ar", "peer", targets=lambda _: [])
  assert [row[:4] for row in greedy.rows[:2]] == [
    ["mtjax:ar", "1.00x (1.67)", "1.00x (1.67)", "1.00x"],
    ["mtjax:lookup", "2.50x (1.67)", "1.67x (1.67)", "2.08x"],
  ]
  assert alone.title == (
    "Decoding alone: speed over mtjax:ar after the first tokens, greedy, batch 1 "
    "(tokens per target forward)"
  )
  assert alone.header == ["system", "editing", "toolcall", "mean", "tokens/s"]
  assert alone.rows == [
    ["mtjax:ar", "1.00x (2.00)", "1.00x (2.00)", "1.00x", "1"],
    ["mtjax:lookup", "4.00x (2.00)", "2.00x (2.00)", "3.00x", "3"],
    ["peer", "0.50x (2.00)", "-", "-", "0"],
  ]
  assert "over peer" in other.title
  titles = [table.title.partition(",")[0] for table in rest[:3]]
  assert titles[1].startswith("Decoding alone: speed over mtjax:ar") and "peer" in titles[2]
  figures = {(r["system"], r["temperature"]): r for r in speed_rows(results, "mtjax:ar")}
  lookup = figures["mtjax:lookup", 0.7]
  assert (lookup["first_seconds"], lookup["decoding_speed_up"]) == ([1.0], 2.0)
  assert (lookup["speed_up"], lookup["decoding_tokens_per_second"]) == (5 / 3, 2.0)


def test_targets_over_plain_decoding_are_judged_for_whole_calls_and_for_decoding_alone():
  times = {
    "mtjax:ar": dict(editing=4.0, toolcall=4.0),
    "mtjax:lookup": dict(editing=1.25, toolcall=2.0),
    "mtjax:suffix": dict(editing=None, toolcall=3.2),
    "mtjax:auto": dict(editing=4.0, toolcall=4.1),
  }
  results = Results(made(times), 0.0)
  found = {
    t.demand: (t.minimum, t.measured and round(t.measured, 3), t.of, t.verdict)
    for t in chat_targets(results)
  }
  assert found["best method / plain, editing"] == (2.5, 2.222, "mtjax:lookup", "fail")
  assert found["best method / plain, editing" + ALONE] == (2.5, 3.2, "mtjax:lookup", "pass")
  assert found["best method / plain, toolcall" + ALONE] == (1.3, 2.0, "mtjax:lookup", "pass")
  assert found["best method / plain, summarising" + ALONE] == (1.3, None, "", "not measured")
  assert found["auto / plain, every set"] == (0.98, 0.98, "mtjax:auto", "pass")
  assert found["auto / plain, every set" + ALONE] == (0.98, 0.976, "mtjax:auto", "fail")
  sampled = [t.demand for t in chat_targets(Results(made(times, 0.7), 0.7))]
  assert [name for name in sampled if ALONE in name] == ["auto / plain, every set" + ALONE]


def test_a_set_where_decoding_alone_is_not_known_is_missing_from_every_set():
  times = {
    "mtjax:ar": dict(editing=None, toolcall=4.0),
    "mtjax:auto": dict(editing=None, toolcall=2.0),
  }
  results = Results(made(times), 0.0)
  assert results.decoding_alone.sets == results.sets
  assert results.decoding_alone.mean_speed_up("mtjax:auto", "mtjax:ar") is None
  found = {t.demand: t.verdict for t in chat_targets(results)}
  assert found["auto / plain, every set"] == "pass"
  assert found["auto / plain, every set" + ALONE] == "not measured"


def test_the_automatic_choice_of_a_drafter_without_a_model_is_a_method_without_a_model():
  free = ["mtjax:lookup:length=5", "mtjax:auto", "mtjax:auto:of=suffix:size=6"]
  assert draft_free([*free, "mtjax:ar", "mtjax:auto:of=draft", "mtjax:draft", "suffix"]) == free
  assert {METHODS[name].family for name in DRAFT_FREE} == {"speculative, no draft model"}
  times = {
    "mtjax:ar": dict(toolcall=4.0),
    "mtjax:suffix": dict(toolcall=2.0),
    "mtjax:auto:of=draft": dict(toolcall=0.5),
    "mtjax:auto:of=suffix": dict(toolcall=1.0),
  }
  found = {t.demand: t.of for t in chat_targets(Results(made(times), 0.0))}
  for demand in ("toolcall", "toolcall" + ALONE, "mean of sets"):
    assert found[f"best method / plain, {demand}"] == "mtjax:auto:of=suffix"


def test_answers_of_workers_keep_their_first_tokens(monkeypatch):
  class Fake:
    def __init__(self, **first):
      self.first = first

    def run(self, batches, job, *, before=None):
      text = SystemText([[7, 7, 7]], 2, dict(compile_seconds=0.0), **self.first)
      return dict(batches=[dict(seconds=2.0, **text._asdict()) for _ in batches])

  @contextlib.contextmanager
  def opened(*_):
    yield {"new": Fake(first_seconds=0.5, first_tokens=1), "old": Fake()}, {}

  monkeypatch.setattr(speculative, "open_workers", opened)
  settings = dict(tokens=3, temperatures=[0.0], threads=1, rounds=2)
  (new, old), _ = compare_sets("", {}, [PromptSet("a", [[1], [2]])], **settings)
  assert (new.first_seconds, new.first_tokens) == ([[0.5] * 2] * 2, [[1] * 2] * 2)
  assert new.after_first().totals == [3.0, 3.0] and old.after_first() is None


@pytest.mark.parametrize("compiled_first", [True, False])
def test_the_first_token_of_mtjax_is_timed_without_compilation(monkeypatch, compiled_first):
  def compiling(now):
    if now:
      jax.monitoring.record_event_duration_secs("/jax/core/compile/anything", 1e6)

  def stream(*_, on_finish, every, max_tokens, **settings):
    assert every == max_tokens == 4 and not settings["eos"]
    compiling(compiled_first)
    yield [[1]]
    compiling(not compiled_first)
    yield [[2, 3, 4]]
    on_finish(types.SimpleNamespace(tokens=[[1, 2, 3, 4]], counters=dict(target_forwards=3)))

  monkeypatch.setattr(mtjax_method, "stream", stream)
  monkeypatch.setattr(mtjax_method, "make_method", lambda *_: (None, None))
  decoder = mtjax_method._Decoder(types.SimpleNamespace(model=None, params=None), {})
  said = decoder([[9]], WorkerJob(4))
  assert (said.tokens, said.forwards, said.first_tokens) == ([[1, 2, 3, 4]], 3, 1)
  # 1e-9 s is what a stopwatch shows where nothing but compilation ran.
  assert (said.first_seconds == 1e-9) == compiled_first


def test_drafts_of_transformers_that_the_pass_over_the_prompt_checks_are_first_tokens(tmp_path):
  config = TransformerConfig(
    vocab_size=4096, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=16, layers=uniform_layers(1)
  )
  model = Model(config)
  params = model.init(jax.random.key(0))
  checkpoints.save(tmp_path / "target", model, params, tokenizer=BpeTokenizer.bundled())
  plain = transformers_assisted.open_system(str(tmp_path), 1)
  start = [5, 6, 7]
  said = plain([start], WorkerJob(60))
  assert said.first_tokens == 1 and said.forwards == 60 and said.first_seconds > 0
  # The greedy text repeats itself, so that its own continuation is found in it.
  (text,) = said.tokens
  prompt, rest = [*start, *text[:48]], text[48:]
  lookup = transformers_assisted.open_system(
    str(tmp_path), 1, generate=dict(prompt_lookup_num_tokens=3)
  )
  said = lookup([prompt], WorkerJob(12))
  assert said.tokens == [rest] and said.first_tokens == 4
