"""The speculative benchmark of a model that chats: ends, equal texts, targets, llama.cpp's loop."""

import ctypes
import sys
import types

import numpy as np
import pytest

from experiments.bench import speculative as bench_speculative
from mtjax.bench.speculative import PromptSet, Results, SystemResult, compare_sets
from mtjax.bench.systems import LLAMA_CPP, WorkerJob, llama_cpp_method
from mtjax.bench.systems.exported import GGUF
from mtjax.bench.targets.chat import chat_targets, differences, with_equal_text
from mtjax.bench.targets.plain import plain_targets
from mtjax.cli.method_names import config_of
from mtjax.report.speed import picture
from mtjax.report.speed.tables import speed_rows, speed_tables


def made(speeds, temperature=0.0, texts=None):
  """Returns results of systems with these speeds per set: one round, one prompt of 4 tokens."""
  texts = texts or {}
  return [
    SystemResult(
      name, where, temperature, [[1 / x]], [[texts.get(name, [1, 2, 3, 4])]], [[2]], [[None]]
    )
    for name, sets in speeds.items()
    for where, x in sets.items()
  ]


SPEEDS = {
  "mtjax:ar": dict(editing=1.0, toolcall=1.0),
  "mtjax:lookup": dict(editing=2.4, toolcall=1.4),
  "mtjax:trie": dict(editing=2.6, toolcall=1.2),
  "mtjax:auto": dict(editing=2.0, toolcall=0.97),
  "mtjax:draft": dict(editing=9.0, toolcall=9.0),
  "transformers prompt lookup 5": dict(editing=1.0, toolcall=0.5),
  "transformers prompt lookup 3": dict(editing=0.9, toolcall=0.7),
}


def test_targets_of_a_chat_model_are_judged_by_methods_without_a_draft_model():
  found = {t.demand: t for t in chat_targets(Results(made(SPEEDS), 0.0))}
  measured = {name: (t.measured and round(t.measured, 6), t.of) for name, t in found.items()}
  assert measured == {
    "best method / plain, editing": (2.6, "mtjax:trie"),
    "best method / plain, editing, decoding alone": (None, ""),
    "best method / plain, summarising": (None, ""),
    "best method / plain, summarising, decoding alone": (None, ""),
    "best method / plain, toolcall": (1.4, "mtjax:lookup"),
    "best method / plain, toolcall, decoding alone": (None, ""),
    "best method / plain, mean of sets": (1.9, "mtjax:lookup"),
    "auto / plain, every set": (0.97, "mtjax:auto"),
    "auto / plain, every set, decoding alone": (None, ""),
    "best method / transformers' lookup, every set": (2.0, "mtjax:lookup"),
    "share of equal text, all lossless methods": (1.0, "mtjax:lookup"),
  }
  assert found["auto / plain, every set"].verdict == "fail"


def test_sampled_results_have_the_targets_that_hold_at_every_temperature():
  every = made(SPEEDS) + made(SPEEDS, 0.7)
  tables = speed_tables(every, "mtjax:ar", targets=chat_targets)
  assert [table.title for table in tables[2:]] == ["Floors, greedy", "Floors, temperature 0.7"]
  assert [len(table.rows) for table in tables[2:]] == [11, 4]


def test_the_first_difference_of_a_lossless_text_is_named():
  texts = {"mtjax:trie": [1, 2, 9, 4], "mtjax:lookup": [1, 2, 3], "mtjax:ar:weights=int8": [7]}
  speeds = SPEEDS | {"mtjax:ar:weights=int8": dict(editing=1.0, toolcall=1.0)}
  assert differences(Results(made(speeds, texts=texts), 0.0)) == [
    "mtjax:lookup, editing, temperature 0, round 1, prompt 1: token 4 is None, and 4 of mtjax:ar",
    "mtjax:trie, editing, temperature 0, round 1, prompt 1: token 3 is 9, and 3 of mtjax:ar",
  ]
  found = {t.demand: t for t in chat_targets(Results(made(speeds, texts=texts), 0.0))}
  equal = found["share of equal text, all lossless methods"]
  assert (equal.measured, equal.of, equal.verdict) == (0.5, "mtjax:trie", "fail")
  assert not differences(Results(made(SPEEDS), 0.0))


def test_sampled_texts_must_be_equal_only_where_drafts_are_compared_with_samples():
  systems = [
    "mtjax:ar",
    "mtjax:draft",
    "mtjax:lookup",
    "mtjax:trie:verifier=block",
    "llama.cpp f16",
  ]
  assert with_equal_text(systems, 0.7) == ["mtjax:lookup"]
  assert with_equal_text(systems, 0) == ["mtjax:draft", "mtjax:lookup", "mtjax:trie:verifier=block"]


def test_speeds_of_texts_of_different_lengths_are_per_token():
  one = SystemResult("a", "s", 0.7, [[1.0, 1.0]], [[[1] * 5, [1] * 5]], [[5, 5]], [[None] * 2])
  two = SystemResult("b", "s", 0.7, [[4.0, 4.0]], [[[1] * 2, [1] * 8]], [[2, 8]], [[None] * 2])
  assert one.speed_up(two) == 4.0 and one.tokens_per_second == 5.0


def test_every_system_gets_the_tokens_that_end_an_answer(monkeypatch):
  import contextlib

  from mtjax.bench import speculative

  seen = []

  class Fake:
    def run(self, batches, job, *, before=None):
      seen.append(job)
      answer = dict(seconds=1.0, tokens=[[7]], forwards=1, counters=None)
      return dict(batches=[answer for _ in batches])

  @contextlib.contextmanager
  def opened(*_):
    yield {"x": Fake()}, {}

  monkeypatch.setattr(speculative, "open_workers", opened)
  settings = dict(tokens=4, temperatures=[0.7], threads=1, rounds=1, ends=(2, 0))
  compare_sets("", {}, [PromptSet("a", [[1]])], **settings)
  assert seen == [WorkerJob(4, 0.7, seed, (2, 0)) for seed in (0, 1)]


def test_systems_that_need_a_draft_model_are_known():
  systems = {
    name: bench_speculative.needs_draft(bench_speculative.system(name))
    for name in ("mtjax:draft_tree", "mtjax:auto:of=draft", "transformers assisted",
                 "mtjax:ar", "mtjax:lookup", "mtjax:auto", "mtjax:auto:of=trie",
                 "transformers prompt lookup 5", "llama.cpp q8_0 lookup")
  }  # fmt: skip
  assert [name for name, needs in systems.items() if needs] == list(systems)[:3]


def test_the_automatic_choice_takes_the_settings_of_the_drafter_that_it_names():
  config = config_of("auto:of=trie:size=5")
  assert config["of"] == "trie" and config["drafter"]["size"] == 5
  assert "max_ngram" not in config["drafter"] and "max_ngram" in config_of("auto")["drafter"]


VOCAB = 10


class Llama:
  """The parts of the C API that the loop uses: the token after x is x + 1, and 5 is followed by 1.

  Raises AssertionError for entries at positions that do not follow those that are held.
  """

  def __init__(self):
    self.held, self.passes = [], []

  def llama_batch_init(self, size, *_):
    return types.SimpleNamespace(
      token=[0] * size, pos=[0] * size, n_seq_id=[0] * size, seq_id=[[0]] * size,
      logits=[0] * size, n_tokens=0,
    )  # fmt: skip

  def llama_decode(self, _, batch):
    at = range(batch.n_tokens)
    assert [batch.pos[i] for i in at] == [len(self.held) + i for i in at]
    tokens = [batch.token[i] for i in at]
    self.held += tokens
    self.passes.append(tokens)
    self.rows = [self._row(1 if token == 5 else token + 1) for token in tokens]
    self.shown = [batch.logits[i] for i in at]
    return 0

  def llama_get_logits_ith(self, _, place):
    assert self.shown[place]
    return self.rows[place]

  def llama_memory_seq_rm(self, _memory, _row, start, end):
    assert start <= len(self.held) and end == -1
    del self.held[start:]

  def llama_memory_clear(self, *_):
    self.held = []

  def __getattr__(self, name):
    if name.endswith("default_params"):
      return types.SimpleNamespace
    return lambda *_: VOCAB if name == "llama_vocab_n_tokens" else 1

  def _row(self, token):
    row = (ctypes.c_float * VOCAB)(*(5.0 if i == token else 0.0 for i in range(VOCAB)))
    return ctypes.cast(row, ctypes.POINTER(ctypes.c_float))


@pytest.fixture
def llama(monkeypatch, tmp_path):
  api = Llama()
  drafts = types.ModuleType("llama_cpp.llama_speculative")

  class Lookup:
    def __init__(self, wrong):
      self.wrong = wrong

    def __call__(self, text):
      follow, token = [], text[-1]
      for _ in range(4):
        token = 1 if token == 5 else token + 1
        follow.append(token)
      follow[2] += self.wrong
      return np.array(follow, np.intc)

  drafts.LlamaPromptLookupDecoding = Lookup
  monkeypatch.setitem(sys.modules, "llama_cpp", api)
  monkeypatch.setitem(sys.modules, "llama_cpp.llama_speculative", drafts)
  (tmp_path / GGUF).write_text("")

  def run(job, **settings):
    opened = llama_cpp_method.open_system(str(tmp_path), 1, weights="file", **settings)
    return opened([[3, 4]], job), api

  return run


def test_llama_cpp_writes_the_same_text_with_drafts_right_and_wrong(llama):
  text = [5, 1, 2, 3, 4, 5, 1, 2, 3]
  plain, _ = llama(WorkerJob(9))
  assert plain.tokens == [text] and plain.forwards == 9
  for wrong, forwards in ((0, 3), (1, 4)):
    said, api = llama(WorkerJob(9), lookup=dict(wrong=wrong))
    assert said.tokens == [text] and said.forwards == forwards
    assert all(len(tokens) <= 5 for tokens in api.passes[1:])


def test_llama_cpp_takes_the_time_of_the_token_after_the_prompt(llama, monkeypatch):
  api = sys.modules["llama_cpp"]
  # A clock that a forward pass moves on by 10 seconds, and nothing else.
  clock = types.SimpleNamespace(perf_counter=lambda: 1.0 + 10 * len(api.passes))
  monkeypatch.setattr(llama_cpp_method, "time", clock)
  said, _ = llama(WorkerJob(9), lookup=dict(wrong=0))
  assert (said.first_seconds, said.first_tokens, said.forwards) == (10.0, 1, 3)


def test_llama_cpp_ends_at_an_end_token_within_accepted_drafts(llama):
  said, _ = llama(WorkerJob(9, ends=(3,)), lookup=dict(wrong=0))
  assert said.tokens == [[5, 1, 2, 3]] and said.forwards == 2


def test_llama_cpp_samples_at_a_temperature(llama):
  one, _ = llama(WorkerJob(9, temperature=0.05, seed=1))
  assert one.tokens == [[5, 1, 2, 3, 4, 5, 1, 2, 3]], "nearly greedy"
  logits = np.array([0.0, np.log(3.0), -np.inf], np.float32)
  rng = np.random.default_rng(0)
  chosen = [llama_cpp_method._choose(logits, 1.0, rng) for _ in range(4000)]
  assert abs(np.mean(chosen) - 0.75) < 0.03 and set(chosen) == {0, 1}
  assert llama_cpp_method._choose(logits, 0.0, rng) == 1


def test_a_model_without_a_file_is_refused_where_its_file_is_wanted(llama, tmp_path):
  (tmp_path / GGUF).unlink()
  with pytest.raises(ValueError, match="does not come from a GGUF file"):
    llama(WorkerJob(4))
  assert {"llama.cpp f16", "llama.cpp q8_0 lookup", "llama.cpp file"} <= set(LLAMA_CPP)


def test_targets_of_plain_decoding_are_medians_of_the_ratios_in_the_same_round():
  def row(system, rates, threads=1, batch=1):
    return dict(system=system, tokens_per_second=rates, threads=threads, batch=batch)

  rows = [
    row("mtjax int8", (30.0, 10.0, 40.0)),
    row("llama.cpp q8_0", (10.0, 10.0, 20.0)),
    row("mtjax float32", (9.0, 9.0, 9.0), threads=2),
    row("transformers eager", (3.0, 3.0, 3.0), threads=2),
    row("mtjax float32", (1.0, 1.0, 1.0), batch=8),
    row("transformers eager", (1.0, 1.0, 1.0), batch=8),
  ]
  (one,), (two,) = plain_targets(rows, 1), plain_targets(rows, 2)
  assert (one.demand, one.measured, one.verdict) == ("mtjax int8 / llama.cpp q8_0", 2.0, "pass")
  assert (two.demand, two.measured) == ("mtjax float32 / transformers eager", 3.0)


def test_the_picture_has_a_bar_for_each_speed_that_was_measured():
  rows = speed_rows(made(SPEEDS)[:-1], "mtjax:ar")
  systems = {"transformers prompt lookup 3": "peer", "mtjax:ar": "ours", "mtjax:jacobi": "absent"}
  figure = picture.figure(rows, systems)
  heights = [[bar.get_height() for bar in group] for group in figure.axes[0].containers]
  rates = {(row["system"], row["prompt_set"]): row["tokens_per_second"] for row in rows}
  peer = [rates["transformers prompt lookup 3", "editing"]]
  assert heights == [peer, [rates["mtjax:ar", one] for one in ("editing", "toolcall")]]
  with pytest.raises(ValueError, match="none of mtjax:jacobi is among the results"):
    picture.figure(rows, {"mtjax:jacobi": "absent"})
