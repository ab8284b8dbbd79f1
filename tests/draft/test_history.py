"""A history says what a decode did: replayed, it gives the text; without it nothing changes."""

import dataclasses
import json

import numpy as np
import pytest

from mtjax.decode.adaptive import Adaptive
from mtjax.decode.audit import audited
from mtjax.decode.generation import generate, stream
from mtjax.decode.method import Autoregressive
from mtjax.decode.speculative import Speculative
from mtjax.rounds.history import TreeRecord, emitted_tokens_of, from_json, to_json
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.logits import Sampling
from tests.compiled import causal_logits
from tests.draft import recorder
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, ROWS, TARGET

WARM = Sampling(temperature=(0.0, 1.0, 0.5), top_p=0.9)
# Rows end by an end token, a stop string and the limit, some of them within an accepted draft.
SETTINGS = dict(
  max_tokens=LIMITS,
  sampling=WARM,
  key=4,
  eos=(5,),
  stop=StopStrings.compile(["ab"], [b"a", b"b", *[b"c"] * 10]),
)
TREE = ROWS["a tree of the target"]
ADAPTIVE = Adaptive(Speculative(ROWS["lookup"].drafter))
METHODS = {
  "ar": (Autoregressive(), None),
  "tree": (Speculative(TREE.drafter), TREE.params),
  "adaptive": (ADAPTIVE, ADAPTIVE.params((1.0, 1.2, 1.3, 1.6))),
}


def run(name, **more):
  method, params = METHODS[name]
  return generate(TARGET, PARAMS, PROMPTS, method=method, method_params=params, **SETTINGS, **more)


@pytest.fixture(scope="module")
def histories():
  return {name: run(name, history=True) for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_the_text_is_that_of_a_run_without_a_history_and_that_of_its_replay(histories, name):
  plain, found = run(name), histories[name]
  assert plain.history is None
  assert found.tokens == plain.tokens and found.drafted == plain.drafted
  assert found.finish == plain.finish
  for counter in ("target_forwards", "entries"):
    assert found.counters[counter] == plain.counters[counter]
  for row, tokens in enumerate(plain.tokens):
    assert emitted_tokens_of(found.history, row) == tokens


def test_a_tree_is_what_the_verifier_judged(histories):
  """Against what the drafter itself was given and told, in a run of its own."""
  rounds, tokens = recorder.rounds(TREE.drafter, TREE.params, **SETTINGS)
  found = histories["tree"]
  assert found.tokens == tokens and len(found.history) == 1 + len(rounds)
  refused = 0
  for seen, record in zip(rounds, found.history[1:], strict=True):
    tree, verdict = seen.round.tree, seen.round.verdict
    for row, one in enumerate(record.rows):
      num_emitted = seen.round.num_emitted[row]
      assert (one is None) == (num_emitted == 0)
      if one is None:
        continue
      nodes = np.flatnonzero(tree.valid[row])
      assert one.tokens == tuple(tree.token[row, nodes])
      parents = [-1 if p < 0 else list(nodes).index(p) for p in tree.parent[row, nodes]]
      assert list(one.parents) == parents
      for node, above, prob in zip(nodes[1:], one.parents[1:], one.draft_probs[1:], strict=True):
        q = seen.draft.q[row, nodes[above], tree.token[row, node]]
        assert prob == pytest.approx(float(q), rel=1e-5)
      assert one.draft_probs[0] is None and one.path[0] == 0
      assert [nodes[node] for node in one.path] == list(verdict.path[row, : len(one.path)])
      assert len(one.emitted) == num_emitted
      refused += len(nodes) > len(one.path)
  assert refused, "every draft was accepted: this tests little"


def test_a_text_that_ends_with_a_draft_has_no_bonus(histories):
  ends = [tree for record in histories["tree"].history for tree in record.rows if tree is not None]
  assert any(tree.bonus is None for tree in ends) and any(tree.bonus is not None for tree in ends)


def softmax_after(prompt, output, temperature, presence_penalty):
  """The target's next distribution, from one causal pass over the whole text."""
  logits = causal_logits(TARGET, PARAMS, [*prompt, *output])[-1].astype(np.float64)
  logits[list(set(output))] -= presence_penalty
  weights = np.exp((logits - logits.max()) / (temperature or 1.0))
  return weights / weights.sum()


@pytest.mark.parametrize("name", METHODS)
def test_probabilities_of_the_target_are_its_own_softmax(name):
  """A history has them for drafts and for the target's own tokens.

  In a greedy row they are those at temperature 1.
  """
  method, params = METHODS[name]
  temperatures, penalty = (0.0, 1.0, 0.5), 0.7
  found = generate(
    TARGET, PARAMS, PROMPTS, method=method, method_params=params, max_tokens=6, history=True,
    sampling=Sampling(temperature=temperatures, presence_penalty=penalty),
  )  # fmt: skip
  refused = 0
  for row, prompt in enumerate(PROMPTS):
    emitted = []
    for record in found.history:
      tree = record.rows[row]
      if tree is None:
        continue
      after = []  # what was emitted up to each node, without the prompt
      assert tree.target_probs[0] is None and len(tree.target_probs) == len(tree.tokens)
      for node, parent in enumerate(tree.parents):
        after.append(emitted if node == 0 else [*after[parent], tree.tokens[node]])
        if node and emitted:
          expected = softmax_after(prompt, after[parent], temperatures[row], penalty)
          assert tree.target_probs[node] == pytest.approx(expected[tree.tokens[node]], abs=1e-5)
      if tree.bonus is not None:
        expected = softmax_after(prompt, after[tree.path[-1]], temperatures[row], penalty)
        assert tree.bonus_prob == pytest.approx(expected[tree.bonus], abs=1e-5)
      else:
        assert tree.bonus_prob is None
      refused += len(tree.tokens) > len(tree.path)
      emitted = [*emitted, *tree.emitted]
    assert emitted == found.tokens[row]
  assert name == "ar" or refused, "every draft was accepted: this tests little"


def test_filters_count_for_rows_that_are_sampled():
  sampling = Sampling(temperature=(0.0, 1.0, 1.0), top_k=1)
  found = generate(TARGET, PARAMS, PROMPTS, max_tokens=3, sampling=sampling, history=True)
  probs = [[record.rows[row].bonus_prob for record in found.history] for row in range(3)]
  assert probs[1:] == [[1.0] * 3] * 2 and max(probs[0]) < 1


def test_records_are_handed_over_while_a_stream_runs():
  records = []
  settings = dict(max_tokens=4, every=2)
  pieces = stream(TARGET, PARAMS, [[1]], history=True, on_record=records.append, **settings)
  next(pieces)
  assert len(records) == 1
  list(pieces)
  assert len(records) == 4
  with pytest.raises(ValueError, match="on_record receives the records of a history"):
    stream(TARGET, PARAMS, [[1]], on_record=records.append, **settings)


def test_drafts_by_a_rule_have_no_probability(histories):
  trees = [tree for record in histories["adaptive"].history for tree in record.rows if tree]
  assert any(len(tree.tokens) > 1 for tree in trees)
  assert {prob for tree in trees for prob in tree.draft_probs} == {None}


def test_time_is_by_stage(histories):
  stages = dict(
    ar=["forward", "commit"],
    tree=["propose", "forward", "verify", "commit"],
    adaptive=["propose", "forward and verify", "commit"],
  )
  for name, expected in stages.items():
    found = histories[name]
    first, *others = found.history
    assert list(first.seconds) == ["prefill"] and others
    assert all(list(record.seconds) == expected for record in others)
    # Each part of the whole counts once, and no compilation does.
    total = sum(sum(record.seconds.values()) for record in found.history)
    assert min(min(record.seconds.values()) for record in found.history) > 0
    assert total == pytest.approx(found.counters["seconds"], rel=0.2)


def test_the_rounds_of_a_stream_are_those_of_the_whole(histories):
  method, params = METHODS["tree"]
  ends = []
  pieces = list(
    stream(
      TARGET, PARAMS, PROMPTS, method=method, method_params=params, every=2, history=True,
      on_finish=ends.append, **SETTINGS,
    )
  )  # fmt: skip
  whole = histories["tree"]
  assert [[t for piece in pieces for t in piece[row]] for row in range(3)] == whole.tokens
  assert [record.rows for record in ends[0].history] == [record.rows for record in whole.history]
  assert len(pieces) == 1 + -(-(len(whole.history) - 1) // 2)


def test_a_history_survives_json(histories):
  history = histories["tree"].history
  assert from_json(json.loads(json.dumps(to_json(history)))) == history
  written = json.loads(json.dumps(dataclasses.asdict(histories["tree"])))
  assert from_json(written["history"]) == history
  with pytest.raises(ValueError, match="no history of rounds"):
    from_json([{"rows": []}])


def test_an_audit_sees_every_round_of_a_recorded_run():
  row = ROWS["lookup"]
  method, params, audit = audited(Speculative(row.drafter), row.params)
  found = generate(
    TARGET, PARAMS, PROMPTS[:1], method=method, method_params=params, max_tokens=8, history=True
  )
  trees = [record.rows[0] for record in found.history[1:]]
  # A verdict may accept more than the limit lets through: only of the last round.
  assert audit.accepted[:-1] == [len(tree.path) - 1 for tree in trees][:-1]
  assert len(audit.accepted) == len(trees)


@dataclasses.dataclass(frozen=True)
class _Blind(Autoregressive):
  """Plain decoding that cannot say what it did."""

  def observe(self, observed):
    raise AssertionError("observed without having been asked")


def test_nothing_is_observed_unless_a_history_is_asked_for():
  settings = dict(method=_Blind(), max_tokens=2)
  assert len(generate(TARGET, PARAMS, [[1]], **settings).tokens[0]) == 2
  assert list(stream(TARGET, PARAMS, [[1]], **settings))
  with pytest.raises(AssertionError, match="without having been asked"):
    generate(TARGET, PARAMS, [[1]], **settings, history=True)


def test_a_text_of_one_token_is_the_prefills():
  found = generate(TARGET, PARAMS, [[1, 2]], max_tokens=1, history=True)
  (record,) = found.history
  token = found.tokens[0][0]
  expected = softmax_after([1, 2], [], 0.0, 0.0)
  prob = record.rows[0].bonus_prob
  assert prob == pytest.approx(expected[token], abs=1e-5) and 0 < prob < 1
  assert record.rows == (TreeRecord((2,), (-1,), (None,), (0,), token, (None,), prob),)
