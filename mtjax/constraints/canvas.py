"""Constraints on a canvas, whose positions are decided in any order: dynamic programming.

APPROXIMATE. A pass over a canvas gives one distribution per position, and each is restricted on its
own: to the tokens with which the canvas can still be completed to an accepted text, whatever the
other masked positions become. How probable these completions are is not looked at, and positions
that one pass decides together are restricted by what was decided to the left of them. So neither
the model's distribution given that the text is accepted is sampled, nor the stepwise one of
decoding from left to right. What holds is that every canvas stays completable, and that one without
a mask is accepted.

A canvas has its text, then end tokens to its last position. All functions take `token` [B, L],
`free` [B, L] (true where a position has no token yet) and `inside` [B, L] (true where it belongs to
the text; a prompt and padding are skipped).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from mtjax.sampling.categorical import sample_categorical
from mtjax.sampling.constraint import Automata
from mtjax.sampling.logits import Rules, process


def allowed_on_canvas(
  automata: Automata,
  token: Int[Array, "B L"],
  free: Bool[Array, "B L"],
  inside: Bool[Array, "B L"],
  index: Int[Array, "B W"],
) -> Bool[Array, "B W V"]:
  """Returns the tokens with which the canvas can be completed, at the positions `index`.

  Forward reachability of states from the start meets backward reachability from accepting ones:
  O(L S^2 + W S C) per row. For a position that has a token, the result is what
  would be allowed there if it had none. Outside of the text every token is allowed.
  """
  tables = _Tables(automata)
  before, after = _reachable(tables, token, free, inside)

  def at(place):
    allowed = tables.allowed(_rows(before, place), _rows(after, place))
    return allowed | ~jnp.take_along_axis(inside, place[:, None], axis=1)

  return jnp.moveaxis(jax.lax.map(at, index.T), 0, 1)


def decide_along(
  automata: Automata,
  rules: Rules,
  logits: Float[Array, "B W V"],
  token: Int[Array, "B L"],
  free: Bool[Array, "B L"],
  inside: Bool[Array, "B L"],
  index: Int[Array, "B W"],
  decide: Bool[Array, "B W"],
  keys: Key[Array, "B W"],
) -> Int[Array, "B W"]:
  """Returns the tokens at the positions `index`, with new ones where to `decide`.

  From left to right: a position is sampled from its logits (not processed) over the tokens with
  which the canvas can be completed, given the tokens to the left of it that are decided. With the
  key that a candidate was sampled with, the result is that candidate wherever it is among them.
  Positions to decide may have a token, which is forgotten. If the canvas could be completed
  without the tokens of these positions, it can be afterwards.

  `index` is a run of positions; what does not follow in it, such as repetitions of the last one, is
  no position.
  """

  def sample(logits, key):
    processed = process(logits[:, None], rules)[:, 0]
    return jax.vmap(sample_categorical)(processed, key)

  return _along(automata, logits, token, free, inside, index, decide, sample, keys)[0]


def logits_along(
  automata: Automata,
  logits: Float[Array, "B W V"],
  token: Int[Array, "B L"],
  free: Bool[Array, "B L"],
  inside: Bool[Array, "B L"],
  index: Int[Array, "B W"],
  decide: Bool[Array, "B W"],
  decided: Int[Array, "B W"],
) -> Float[Array, "B W V"]:
  """Returns the logits that `decide_along` samples from if what it decides is `decided`.

  They are not processed; -inf is where the canvas cannot be completed. Of other positions they
  mean nothing.
  """

  def follow(logits, new):
    del logits
    return new

  return _along(automata, logits, token, free, inside, index, decide, follow, decided)[1]


def is_completable(
  automata: Automata,
  token: Int[Array, "B L"],
  free: Bool[Array, "B L"],
  inside: Bool[Array, "B L"],
) -> Bool[Array, " B"]:
  """Returns whether some tokens of the free positions make each canvas an accepted one."""
  tables = _Tables(automata)
  before, after = _reachable(tables, token, free, inside)
  first = tables.backward(after[0], token[:, 0], free[:, 0], inside[:, 0])
  return jnp.any(before[0] & first, axis=1)


def _along(
  automata: Automata,
  logits: Float[Array, "B W V"],
  token: Int[Array, "B L"],
  free: Bool[Array, "B L"],
  inside: Bool[Array, "B L"],
  index: Int[Array, "B W"],
  decide: Bool[Array, "B W"],
  choose: Callable[[Float[Array, "B V"], Shaped[Array, " B"]], Int[Array, " B"]],
  chosen_by: Shaped[Array, "B W"],
) -> tuple[Int[Array, "B W"], Float[Array, "B W V"]]:
  """Returns the tokens of a run of positions, and the restricted logits that they come from.

  `choose` makes a token per row of such logits and of a column of `chosen_by`.
  """
  tables = _Tables(automata)
  width = index.shape[1]
  run = index == index[:, :1] + jnp.arange(width)
  decide, rows = decide & run, jnp.arange(len(token))[:, None]
  open_ = free.at[rows, jnp.where(decide, index, token.shape[1])].set(True, mode="drop")
  before, after = _reachable(tables, token, open_, inside)

  def step(forward, xs):
    logits, place, token, free, inside, decide, by = xs
    allowed = tables.allowed(forward, _rows(after, place)) | ~inside[:, None]
    restricted = jnp.where(allowed, logits, -jnp.inf)
    token = jnp.where(decide, choose(restricted, by), token)
    return tables.forward(forward, token, free & ~decide, inside), (token, restricted)

  here = (jnp.take_along_axis(x, index, axis=1) for x in (token, free, inside))
  token, free, inside = here
  xs = (jnp.moveaxis(logits, 1, 0), index.T, token.T, free.T, (inside & run).T, decide.T)
  start = _rows(before, index[:, 0])
  _, (token, restricted) = jax.lax.scan(step, start, (*xs, chosen_by.T))
  return token.T, jnp.moveaxis(restricted, 0, 1)


def _reachable(
  tables: "_Tables", token, free, inside
) -> tuple[Bool[Array, "L B S"], Bool[Array, "L B S"]]:
  """Returns for each position the states before it, and those behind it that can be completed."""
  xs = (token.T, free.T, inside.T)

  def onward(before, one):
    return tables.forward(before, *one), before

  def back(after, one):
    return tables.backward(after, *one), after

  _, before = jax.lax.scan(onward, tables.start(token.shape[0]), xs)
  _, after = jax.lax.scan(back, tables.accepting, xs, reverse=True)
  return before, after


def _rows(states: Bool[Array, "L B S"], place: Int[Array, " B"]) -> Bool[Array, "B S"]:
  """Returns the states at one position of each row."""
  return states[place, jnp.arange(len(place))]


class _Tables:
  """The automaton of each row, and which states follow a state by any token."""

  def __init__(self, automata: Automata):
    automata_next = automata.next
    count, states, _ = automata_next.shape
    index = jnp.where(automata_next < 0, states, automata_next)
    steps = jnp.zeros((count, states, states), bool)
    k, s = jnp.arange(count)[:, None, None], jnp.arange(states)[None, :, None]
    steps = steps.at[k, s, index].set(True, mode="drop")
    self._steps = steps[automata.which]  # [B, S, S]
    self._next = automata_next[automata.which]  # [B, S, C]
    self._class = automata.class_of_token[automata.which]  # [B, V]
    self.accepting = automata.distance[automata.which] == 0  # [B, S]

  def start(self, batch: int) -> Bool[Array, "B S"]:
    return jnp.broadcast_to(jnp.arange(self.accepting.shape[1]) == 0, (batch, self._next.shape[1]))

  def allowed(self, forward, after) -> Bool[Array, "B V"]:
    """Returns the tokens that lead from a state of `forward` to one of `after`."""
    reached = _at(after[:, None], self._next) & forward[:, :, None]
    return jnp.take_along_axis(jnp.any(reached, axis=1), self._class, axis=1)

  def forward(self, forward, token, free, inside) -> Bool[Array, "B S"]:
    """Returns the states that a text may be in after one more position."""
    target = self._after(token)
    rows = jnp.arange(len(token))[:, None]
    index = jnp.where(forward & (target >= 0), target, forward.shape[1])
    fixed = jnp.zeros_like(forward).at[rows, index].set(True, mode="drop")
    moved = jnp.any(self._steps & forward[:, :, None], axis=1)
    return _chosen(inside, free, moved, fixed, forward)

  def backward(self, after, token, free, inside) -> Bool[Array, "B S"]:
    """Returns the states before a position from which `after` is reached."""
    moved = jnp.any(self._steps & after[:, None], axis=2)
    return _chosen(inside, free, moved, _at(after, self._after(token)), after)

  def _after(self, token) -> Int[Array, "B S"]:
    kind = jnp.take_along_axis(self._class, token[:, None], axis=1)
    return jnp.take_along_axis(self._next, kind[:, :, None], axis=2)[:, :, 0]


def _at(states: Bool[Array, "B ... S"], index: Int[Array, "B ... C"]) -> Bool[Array, "B ... C"]:
  """Returns which of the indices are of a state that is true; -1 is of none."""
  return (index >= 0) & jnp.take_along_axis(states, jnp.maximum(index, 0), axis=-1)


def _chosen(inside, free, moved, fixed, same):
  return jnp.where(inside[:, None], jnp.where(free[:, None], moved, fixed), same)
