"""The profile of a round: its arithmetic, and the attribution of time to its parts."""

import dataclasses
import time

import jax.numpy as jnp
import pytest

from mtjax.bench import profile
from mtjax.bench.profile import Profile, profile_round, with_nodes
from mtjax.bench.stand_in import StandIn, answers_of, with_stand_in
from mtjax.decode.method import Autoregressive
from mtjax.decode.speculative import Speculative
from mtjax.draft import BestFirst, ModelChain, PromptLookup
from mtjax.report.speed.tables import profile_table
from mtjax.types import Frontier
from tests.draft.drafters import PARAMS, SMALL, SMALL_PARAMS, TARGET

PROMPT = [1, 2, 3, 1, 2]


def test_what_is_outside_is_the_round_without_its_networks():
  parts = {"drafter, without its network": 0.2e-3, "verify": 1e-3, "commit": 0.3e-3}
  profiled = Profile(32, 4096, 10e-3, 7e-3, 1e-3, 8.7e-3, parts)
  assert profiled.outside == pytest.approx(2e-3) and profiled.share == pytest.approx(0.2)
  assert profiled.share_of_parts == pytest.approx(0.15)
  assert profiled.share_in_turn == pytest.approx(0.15), "10 - (8.7 - 0.2)"
  assert dataclasses.replace(profiled, target=11e-3).share == 0.0, "noise is no negative time"
  (row,) = profile_table({"lookup": profiled}).rows
  assert row == (
    "lookup", "4,096", "32", "10.000", "7.000", "1.000", "8.700",
    "0.200", "1.000", "0.300", "20.0%", "15.0%", "15.0%",
  )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Slow(PromptLookup):
  """A drafter whose bookkeeping costs what a matrix product does."""

  def propose(self, params, state, context):
    wide = jnp.full((700, 700), context.last[0], jnp.float32) * 1e-9
    draft, state = super().propose(params, state, context)
    # Never below zero, but the compiler does not know it.
    more = (jnp.sum(wide @ wide) < 0).astype(jnp.int32)
    return draft.replace(tree=draft.tree.replace(token=draft.tree.token + more)), state


def test_a_slow_drafter_is_seen_in_the_round_and_in_its_part():
  profiled = profile_round(
    TARGET, PARAMS, Speculative(Slow(length=2)), None, PROMPT, repeats=3, clock=time.process_time
  )
  assert (
    profiled.nodes == 3 and profiled.vocab == TARGET.config.vocab_size and profiled.draft == 0.0
  )
  assert set(profiled.parts) == {"drafter, without its network", "verify", "emit", "commit"}
  slow = profiled.parts["drafter, without its network"]
  # 0.7 GFLOP beside a network of a few thousand weights.
  assert slow > 0.5 * profiled.round and profiled.share > 0.5, profiled


@pytest.mark.slow
def test_a_draft_models_network_is_told_from_its_bookkeeping():
  chain = Speculative(ModelChain(SMALL, 2))
  profiled = profile_round(TARGET, PARAMS, chain, SMALL_PARAMS, PROMPT, repeats=1)
  assert (
    profiled.nodes == 3
    and min(profiled.round, profiled.target, profiled.draft, profiled.in_turn) >= 0
  )


def test_a_stand_in_answers_in_the_shapes_of_its_model():
  token = jnp.array([[3, 1, 2]])
  stamp = jnp.arange(3)[None, None]
  frontier = Frontier(token, token, stamp, stamp, stamp + 9)
  cache = SMALL.allocate(1, 8)
  logits = jnp.arange(24.0).reshape(1, 2, 12)
  real = SMALL.forward(SMALL_PARAMS, frontier, cache, jnp.array([[2]]))
  answers = answers_of(SMALL, logits)
  answered = StandIn(SMALL).forward(answers, frontier, cache, jnp.array([[2]]))
  assert jnp.array_equal(answered.logits[0, 0], logits[0, 2 % 2])
  assert (
    answered.logits.shape == real.logits.shape and answered.features.shape == real.features.shape
  )
  assert [x.k.shape for x in answered.kv] == [x.k.shape for x in real.kv]
  assert StandIn(SMALL).forward(real, frontier) is real
  assert with_stand_in(PromptLookup()) is None
  assert with_stand_in(ModelChain(SMALL, 3)) == ModelChain(StandIn(SMALL), 3)


def test_a_tree_gets_the_requested_nodes_if_its_drafter_can():
  grown = with_nodes(TARGET, Speculative(PromptLookup(length=2)), None, 6)
  assert grown.drafter == PromptLookup(length=5)
  two = Speculative(PromptLookup(length=2, branches=2))
  assert with_nodes(TARGET, two, None, 6) == two, "two branches of n are 2 n + 1 nodes"
  few = Speculative(BestFirst(SMALL, size=4, depth=2, width=2))
  assert with_nodes(TARGET, few, SMALL_PARAMS, 6).drafter.size == 5, "the root is not counted"
  assert with_nodes(TARGET, few, SMALL_PARAMS, 32) == few, "two levels of two have no 31 drafts"


def test_what_has_no_such_round_is_refused(monkeypatch):
  with pytest.raises(ValueError, match="only speculative rounds .* not Autoregressive"):
    profile_round(TARGET, PARAMS, Autoregressive(), None, PROMPT)
  with pytest.raises(ValueError, match="16 rounds of up to 33 tokens after 5 need 566 positions"):
    profile_round(TARGET, PARAMS, Speculative(PromptLookup(length=32)), None, PROMPT)
  assert profile.ROUNDS == 16
