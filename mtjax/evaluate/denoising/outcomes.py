"""The outcomes of the random numbers of one pass, each with its probability.

The rules themselves run, with numbers in place of their random ones (`View.noise`). A rule that
reads other random numbers than these is refused: what it does cannot be enumerated.
"""

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtjax.diffusion.candidates import CanvasCandidates
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.diffusion.random_numbers import Stream
from mtjax.diffusion.revise.remdm import Remasking
from mtjax.diffusion.transfer.ancestral import Ancestral
from mtjax.diffusion.transfer.gumbel.gumbel_ranking import GumbelRanking
from mtjax.diffusion.view import View

_TAILS = 1.0 - 2.0**-53  # the largest number below 1: no coin shows heads, but one that always does


class Chances(NamedTuple):
  """What the probabilities of random numbers depend on; None: the policy has none of the kind."""

  coins: Float[Array, "B L"] | None  # probability that a coin shows heads
  location: Float[Array, "B L"] | None  # of a ranking with Gumbel noise
  temperature: Float[Array, " B"] | None  # of that noise


class Choices(NamedTuple):
  """K outcomes per row, and the numbers that lead to them."""

  weight: Float[np.ndarray, "B K"]
  noise: Mapping[Stream, Float[np.ndarray, "#B K L"]]


def chances(
  policy: DecidingPolicy, revise_state: PyTree, view: View, candidates: CanvasCandidates
) -> Chances:
  """Returns what the probabilities of a pass's random numbers depend on; to be traced."""
  coins = location = temperature = None
  if isinstance(policy.revise, Remasking):
    coins = policy.revise.probs(revise_state, view)
  elif isinstance(policy.transfer, Ancestral):
    coins = policy.transfer.probs(view)[:, None] + 0.0 * view.position
  if isinstance(policy.transfer, GumbelRanking):
    location = policy.transfer.location(policy.order.score(view, candidates))
    temperature = policy.transfer.temperature(view)
  return Chances(coins, location, temperature)


def noises(policy: DecidingPolicy, chance: Chances, is_open: Bool[np.ndarray, "B L"]) -> Choices:
  """Returns all outcomes of the random numbers of a pass."""
  rows, length = is_open.shape
  nothing = np.zeros((1, 1, length))
  out = Choices(
    np.ones((rows, 1)),
    {Stream.ORDER: nothing, Stream.TRANSFER: nothing, Stream.REVISE: nothing},
  )
  if chance.coins is not None:
    stream = Stream.REVISE if isinstance(policy.revise, Remasking) else Stream.TRANSFER
    return _both(out, _coins(stream, np.asarray(chance.coins)))
  if policy.order.uniform:
    out = _both(out, _orders(rows, length))
  if chance.location is not None and chance.temperature is not None and chance.temperature[0] > 0:
    location, temperature = np.asarray(chance.location), float(chance.temperature[0])
    out = _both(out, _rankings(location, temperature, is_open))
  return out


def _coins(stream: Stream, heads: Float[np.ndarray, "B L"]) -> Choices:
  """Returns all results of a coin per position: a number below or above its probability."""
  up = np.array(list(itertools.product((True, False), repeat=heads.shape[1])))
  heads = heads[:, None].astype(np.float64)
  weight = np.where(up, heads, 1.0 - heads).prod(axis=-1)
  return Choices(weight, {stream: np.where(up, 0.0, _TAILS)[None]})


def _orders(rows: int, length: int) -> Choices:
  """Returns all orders of equal noise: every permutation is as probable as any other."""
  ranks = _permutations(length)
  weight = np.full((rows, len(ranks)), 1.0 / math.factorial(length))
  return Choices(weight, {Stream.ORDER: -ranks[None].astype(float)})


def _rankings(
  location: Float[np.ndarray, "B L"], temperature: float, is_open: Bool[np.ndarray, "B L"]
) -> Choices:
  """Returns all orders of location + temperature G, open positions first (Plackett-Luce)."""
  orders = _permutations(location.shape[1])
  scaled = np.where(is_open, location / temperature, -np.inf)
  chance = np.ones((len(location), len(orders)))
  for k, order in enumerate(orders):
    for i, place in enumerate(order):
      left = order[i:]
      total = np.logaddexp.reduce(scaled[:, left], axis=1)
      of_open = np.exp(scaled[:, place] - np.where(is_open[:, place], total, 0.0))
      of_closed = ~is_open[:, left].any(axis=1) / np.maximum((~is_open[:, left]).sum(axis=1), 1)
      chance[:, k] *= np.where(is_open[:, place], of_open, of_closed)
  ranks = np.argsort(orders, axis=1)
  noise = (-ranks[None] - location[:, None]) / temperature
  return Choices(chance, {Stream.TRANSFER: noise})


def _both(a: Choices, b: Choices) -> Choices:
  """Returns all pairs of outcomes; the numbers of `b` replace those of `a`."""
  weight = (a.weight[:, :, None] * b.weight[:, None, :]).reshape(len(a.weight), -1)
  noise = {stream: np.repeat(x, b.weight.shape[1], axis=1) for stream, x in a.noise.items()}
  noise |= {stream: np.tile(x, (1, a.weight.shape[1], 1)) for stream, x in b.noise.items()}
  return Choices(weight, noise)


def _permutations(length: int) -> Int[np.ndarray, "K L"]:
  return np.array(list(itertools.permutations(range(length))))
