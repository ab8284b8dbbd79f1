"""Frontiers of diffusion training: rows of packed documents, which do not see each other."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from mtjax import frontier as frontier_lib
from mtjax.diffusion.noising.times import run_start
from mtjax.types import FOREVER, Frontier


def document_canvas(
  token: Int[Array, "B L"],
  document: Int[Array, "B L"],
  is_open: Bool[Array, "B L"] | None = None,
) -> Frontier:
  """Returns documents whose entries all see each other; 0 is padding, as in `packed`.

  With `is_open`, only open entries are seen by the entries before them; with none open, each
  document is causal. A model that begins as a causal one is trained with more and more open entries
  (attention mask annealing: DiffuLLaMA 2410.17891, sec. 3.2, which opens pairs of entries; stamps
  open an entry for all).
  """
  causal = frontier_lib.packed(token, document)
  seen = (document > 0) if is_open is None else (document > 0) & is_open
  begin = causal.stamp - causal.position[:, None]
  return causal.replace(lo=jnp.where(seen[:, None], begin, causal.lo))


def document_blocks(
  noisy: Int[Array, "B L"],
  clean: Int[Array, "B L"],
  document: Int[Array, "B L"],
  size: int,
  is_open: Bool[Array, "B L"] | None = None,
) -> Frontier:
  """Returns 2L entries, noisy and then clean, of documents in blocks of `size` tokens.

  Entries of one document see each other as in `block_diffusion` (BD3-LM 2503.09573, sec. 3.2).
  Blocks are counted from the beginning of each document; the last may be shorter. Entry i and entry
  L + i have the same position.

  With `is_open`, only open entries are seen by the entries before them in their block, noisy or
  clean; see `document_canvas`. With none open, the clean half is causal, and so is each noisy block
  after its clean prefix.
  """
  position = frontier_lib.packed(clean, document).position
  number = jnp.cumsum(block_starts(position, size), axis=1)
  joint = frontier_lib.block_diffusion(noisy, clean, number)
  joint = joint.replace(position=jnp.concatenate([position, position], axis=1))
  if is_open is not None:
    joint = _in_order(joint, position % size, is_open, size)
  twice = jnp.concatenate([document, document], axis=1)
  apart = frontier_lib.block_local(joint.token, twice)
  return frontier_lib.both(joint, apart)


def document_canvases(
  noisy: Int[Array, "B L"],
  clean: Int[Array, "B L"],
  document: Int[Array, "B L"],
  first: Bool[Array, "B L"],
) -> Frontier:
  """Returns 2L entries, noisy and then clean, of documents whose canvases begin where `first` is.

  Entries of one document see each other as in `causal_canvases`; every document must begin a
  canvas. Entry i and entry L + i have the same position.
  """
  position = frontier_lib.packed(clean, document).position
  joint = frontier_lib.causal_canvases(noisy, clean, run_start(first))
  joint = joint.replace(position=jnp.concatenate([position, position], axis=1))
  twice = jnp.concatenate([document, document], axis=1)
  return frontier_lib.both(joint, frontier_lib.block_local(joint.token, twice))


def _in_order(
  joint: Frontier, place: Int[Array, "B L"], is_open: Bool[Array, "B L"], size: int
) -> Frontier:
  """Returns stamps that also order the entries of a block; a closed one begins at its own stamp."""
  place, is_open = (jnp.concatenate([x, x], axis=1)[:, None] for x in (place, is_open))
  stamp = joint.stamp * size + place
  hi = jnp.where(joint.hi == FOREVER, FOREVER, joint.hi * size)
  return joint.replace(stamp=stamp, lo=jnp.where(is_open, joint.lo * size, stamp), hi=hi)


def block_starts(position: Int[Array, "B L"], size: int) -> Bool[Array, "B L"]:
  """Returns where blocks of `size` tokens begin, for positions that restart in each document."""
  return position % size == 0
