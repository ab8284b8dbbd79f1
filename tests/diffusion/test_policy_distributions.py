"""The distribution of whole texts, enumerated in float64: what is exact, and what is not."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion import DecidingPolicy
from mtjax.diffusion.order import (
  Halton,
  LeftToRight,
  LowEntropy,
  MaxProbability,
  RandomPositions,
  SampledProbability,
  TopMargin,
)
from mtjax.diffusion.protocols import AnyOrderTransfer, StatelessOrder
from mtjax.diffusion.random_numbers import Stream, uniform
from mtjax.diffusion.ranking import first
from mtjax.diffusion.revise import RemdmCap, RemdmConf, RemdmLoop, RemdmRescale
from mtjax.diffusion.revise.remdm import Remasking
from mtjax.diffusion.rule import rule
from mtjax.diffusion.transfer import (
  Ancestral,
  DreamCounts,
  FirstHitting,
  LladaCounts,
  MaskGit,
  OneByOne,
)
from mtjax.diffusion.transfer.gumbel.gumbel_ranking import GumbelRanking
from mtjax.evaluate.denoising import (
  Conditionals,
  canvases,
  conditionals_of,
  passes,
  perturbed,
  text_probs,
)
from mtjax.evaluate.exactness import total_variation
from mtjax.types import Exactness

RNG = np.random.default_rng(0)
JOINT = RNG.dirichlet(np.ones(8)).reshape(2, 2, 2)
AGREEING = conditionals_of(JOINT)
DISAGREEING = perturbed(AGREEING, RNG, 1.0)
RANDOM = DecidingPolicy()


def ordered(toy: Conditionals, order) -> np.ndarray:
  """Returns the product of the toy's conditionals in one order of positions, per text."""
  out = []
  for text in itertools.product(range(toy.vocab), repeat=toy.length):
    canvas, p = np.full(toy.length, toy.vocab), 1.0
    for i in order:
      p *= toy.probs[toy.number(canvas), i, text[i]]
      canvas[i] = text[i]
    out.append(p)
  return np.array(out)


def averaged(toy: Conditionals) -> np.ndarray:
  """Returns the mean of `ordered` over all orders: what masked diffusion is a model of."""
  return np.mean([ordered(toy, o) for o in itertools.permutations(range(toy.length))], axis=0)


def distance(policy: DecidingPolicy, toy: Conditionals, probs: np.ndarray, steps: int = 3) -> float:
  return float(total_variation(text_probs(policy, toy, steps=steps).probs, probs.ravel()))


LOSSLESS = {
  "left to right": (DecidingPolicy(LeftToRight(), OneByOne()), lambda toy: ordered(toy, range(3))),
  "Halton": (DecidingPolicy(Halton(), OneByOne()), lambda toy: ordered(toy, (0, 2, 1))),
  "random": (DecidingPolicy(RandomPositions(), OneByOne()), averaged),
  "first hitting": (DecidingPolicy(RandomPositions(), FirstHitting()), averaged),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_policy_has_the_distribution_of_its_order(name):
  policy, reference = LOSSLESS[name]
  assert policy.exactness is Exactness.LOSSLESS and not policy.reason
  assert distance(policy, DISAGREEING, reference(DISAGREEING)) < 1e-12
  assert distance(policy, AGREEING, JOINT) < 1e-12


@pytest.mark.parametrize("order", [MaxProbability(), TopMargin(), LowEntropy()])
def test_statistics_of_a_position_keep_the_joint_of_conditionals_that_agree(order):
  policy = DecidingPolicy(order, OneByOne())
  assert policy.exactness is Exactness.APPROXIMATE and "agree" in policy.reason
  assert distance(policy, AGREEING, JOINT) < 1e-12
  assert distance(policy, DISAGREEING, averaged(DISAGREEING)) > 0.01


def published_toys():
  """Returns conditionals and a joint by numpy's seed 3, of which distances are known."""
  rng = np.random.default_rng(3)
  table: dict[tuple, np.ndarray] = {}
  canvas_list = [(2, 2, 2)]
  for _ in range(3):
    following: dict[tuple, None] = {}
    for canvas in canvas_list:
      for i in (i for i in range(3) if canvas[i] == 2):
        logits = rng.normal(size=2) * 1.5
        if (canvas, i) not in table:
          table[canvas, i] = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        following |= {(*canvas[:i], v, *canvas[i + 1 :]): None for v in range(2)}
    canvas_list = list(following)
  half = np.full(2, 0.5)
  probs = [[table.get((tuple(c), i), half) for i in range(3)] for c in canvases(3, 2).tolist()]
  return Conditionals(np.array(probs)), rng.dirichlet(np.ones(8)).reshape(2, 2, 2)


def enumerated(toy: Conditionals, steps: int, decides) -> np.ndarray:
  """Returns P(text) by trying all that a pass may do, without any code of the package's policies.

  decides(masked, chance, step): pairs of a probability and the positions that take the token that
  was sampled there; chance: the probabilities of those tokens, by masked position.
  """
  reached = {(toy.vocab,) * toy.length: 1.0}
  for step in range(steps):
    following: dict[tuple, float] = {}
    for canvas, p in reached.items():
      masked = [i for i in range(toy.length) if canvas[i] == toy.vocab]
      each = [toy.probs[toy.number(np.array(canvas)), i] for i in masked]
      for tokens in itertools.product(range(toy.vocab), repeat=len(masked)):
        chance = [row[token] for row, token in zip(each, tokens, strict=True)]
        for share, positions in decides(masked, chance, step):
          taken = dict(zip(masked, tokens, strict=True))
          after = tuple(taken[i] if i in positions else canvas[i] for i in range(toy.length))
          following[after] = following.get(after, 0.0) + p * float(np.prod(chance)) * share
    reached = following
  return np.array(
    [reached[text] for text in itertools.product(range(toy.vocab), repeat=toy.length)]
  )


def test_ancestral_sampling_tends_to_first_hitting():
  """Up to 4 passes all outcomes are tried; the four distances are recorded ones."""
  toy, _ = published_toys()
  policy = DecidingPolicy(RandomPositions(), Ancestral())

  def coins(steps):
    """Each masked position is decided with probability (t - s) / t, from time t to s."""

    def decides(masked, chance, step):
      p = 1 / (steps - step)
      for size in range(len(masked) + 1):
        for positions in itertools.combinations(masked, size):
          yield p**size * (1 - p) ** (len(masked) - size), positions

    return decides

  exact = text_probs(RANDOM, toy, steps=3).probs
  for steps in (1, 4):
    reference = enumerated(toy, steps, coins(steps))
    assert distance(policy, toy, reference, steps) < 1e-12
  found = [distance(policy, toy, exact, steps) for steps in (1, 4, 16, 64)]
  np.testing.assert_allclose(found, [0.653, 0.121, 0.0287, 0.0071], rtol=0.01)


def test_ranking_by_the_sampled_token_is_biased_and_by_statistics_is_not():
  _, joint = published_toys()
  toy = conditionals_of(joint)

  def surest(masked, chance, _):
    yield 1.0, (masked[int(np.argmax(chance))],)

  policy, reference = DecidingPolicy(SampledProbability(), OneByOne()), enumerated(toy, 3, surest)
  assert distance(policy, toy, reference) < 1e-12
  # A recorded value.
  assert distance(policy, toy, joint) == pytest.approx(0.29, abs=0.005)
  assert distance(DecidingPolicy(MaxProbability(), OneByOne()), toy, joint) < 1e-12


PRODUCT = conditionals_of(np.multiply.outer(np.multiply.outer([0.7, 0.3], [0.6, 0.4]), [0.2, 0.8]))


@pytest.mark.parametrize("revise", [RemdmCap(0.1), RemdmRescale(0.4)])
def test_remdm_keeps_the_marginals_in_time(revise):
  """For independent positions, those of a pass lose nothing: P(masked) = s, and texts are exact."""
  policy = DecidingPolicy(RandomPositions(), Ancestral(), revise)
  masked = canvases(3, 2) == 2
  for step, state in enumerate(passes(policy, PRODUCT, steps=5), 1):
    np.testing.assert_allclose(state.probs @ masked, 1 - step / 5, atol=1e-12)
  joint = ordered(PRODUCT, range(3))
  assert total_variation(state.probs[PRODUCT.texts], joint) < 1e-12


def test_remdm_loop_follows_its_rates():
  """t is 1, .8, ... .2: masks fall to 1 - alpha_on at t_on, stay there, and end."""
  policy = DecidingPolicy(RandomPositions(), Ancestral(), RemdmLoop(0.05, 0.5, 0.25, 0.8))
  masked = canvases(3, 2) == 2
  rates = [state.probs @ masked for state in passes(policy, PRODUCT, steps=10)]
  s = 1 - np.arange(1, 11) / 10
  expected = np.where(s > 0.5, 1 - (1 - s) * 0.8 / 0.5, np.where(s > 0.25, 0.2, 0.2 * s / 0.25))
  np.testing.assert_allclose(rates, np.repeat(expected[:, None], 3, axis=1), atol=1e-6)


def test_remdm_by_confidence_falls_behind_the_rates():
  policy = DecidingPolicy(RandomPositions(), Ancestral(), RemdmConf())
  masked = canvases(3, 2) == 2
  rates = [float((state.probs @ masked).mean()) for state in passes(policy, PRODUCT, steps=4)]
  assert rates[0] == pytest.approx(0.75) and rates[-1] == pytest.approx(0.0)
  assert rates[1] > 0.5 + 0.01 and rates[2] > 0.25 + 0.01


def test_noise_without_temperature_and_with_a_high_one_are_known_policies():
  """At temperature 0 the best scores win; far above the scores every order is as probable."""
  scores, two = SampledProbability(), dict(toy=DISAGREEING, steps=2)
  best = text_probs(DecidingPolicy(scores, LladaCounts()), **two).probs
  dream = [text_probs(DecidingPolicy(scores, DreamCounts(t)), **two).probs for t in (0, 1e6)]
  # 3 positions in 2 passes: LLaDA decides 2 and 1, Dream int(3 / 2) = 1 and the others.
  assert total_variation(best, dream[0]) > 0.01
  shuffled = text_probs(DecidingPolicy(RandomPositions(), DreamCounts()), **two).probs
  assert total_variation(dream[1], shuffled) < 1e-5 < total_variation(dream[0], shuffled)
  git = text_probs(
    DecidingPolicy(scores, MaskGit(1e6)), **two
  ).probs  # 3 cos(pi / 4) = 2.1: as Dream
  assert total_variation(git, shuffled) < 1e-5


@rule
class FavoursTheFirst(StatelessOrder):
  """As RandomPositions, but the scores are not equally distributed."""

  exactness, uniform = Exactness.LOSSLESS, True

  def score(self, view, candidates):
    return RandomPositions().score(view, candidates) - 1.5 * view.position


@rule
class TwoAtATime(AnyOrderTransfer):
  exactness = Exactness.LOSSLESS

  def choose(self, view, candidates, score):
    return first(score, view.open, jnp.full_like(view.step, 2))


@rule
class ByToken(AnyOrderTransfer):
  """Decides the first position in any case, the second only if its token is 1."""

  exactness = Exactness.LOSSLESS

  def choose(self, view, candidates, score):
    best = first(score, view.open, jnp.ones_like(view.step))
    second = first(score, view.open, jnp.full_like(view.step, 2)) & ~best
    return jnp.where(candidates.token == 1, best | second, best)


@rule
class RemasksOnly(Remasking):
  """Masks again, and decides as if it did not."""

  def sigma(self, state, view):
    return jnp.full(view.open.shape, 0.1, view.t.dtype)

  def probs(self, state, view):
    heads = Ancestral().probs(view)[:, None]
    sigma = jnp.where(view.last[:, None], 0.0, self.sigma(state, view))
    return jnp.where(view.open, heads, sigma)


@rule
class CoinOfItsOwn(GumbelRanking):
  """Claims to be Gumbel noise on scores, with noise that nothing declares."""

  exactness = Exactness.LOSSLESS

  def choose(self, view, candidates, score):
    return view.open & (uniform(view, Stream.TIME) < 0.5)

  def location(self, score):
    return score

  def temperature(self, view):
    return jnp.ones_like(view.t)


@pytest.mark.parametrize(
  "policy",
  [
    DecidingPolicy(FavoursTheFirst(), OneByOne()),
    DecidingPolicy(RandomPositions(), TwoAtATime()),
    DecidingPolicy(RandomPositions(), ByToken()),
  ],
  ids=lambda policy: type(policy.order).__name__ + type(policy.transfer).__name__,
)
def test_enumeration_finds_what_claims_to_be_lossless_and_is_not(policy):
  assert policy.exactness is Exactness.LOSSLESS
  assert distance(policy, DISAGREEING, averaged(DISAGREEING)) > 0.005


def test_enumeration_finds_wrong_marginals():
  policy = DecidingPolicy(RandomPositions(), Ancestral(), RemasksOnly())
  states = list(passes(policy, PRODUCT, steps=5))
  assert abs(states[2].probs @ (canvases(3, 2) == 2) - 0.4).max() > 0.01


def test_enumeration_refuses_what_it_cannot_see():
  with pytest.raises(ValueError, match="no numbers in place of the random ones of TIME"):
    text_probs(DecidingPolicy(RandomPositions(), CoinOfItsOwn()), AGREEING, steps=2)
  with pytest.raises(ValueError, match="after 2 passes the texts are unfinished with p = 1"):
    text_probs(RANDOM, AGREEING, steps=3, max_passes=2)
  with pytest.raises(ValueError, match="3 positions of 2 tokens have 27 canvases: got 26"):
    Conditionals(AGREEING.probs[1:])
  with pytest.raises(ValueError, match="must have positive probabilities"):
    conditionals_of(np.array([[0.5, 0.5], [0.0, 0.0]]))
