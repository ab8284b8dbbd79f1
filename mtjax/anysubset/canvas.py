"""A text with blanks, as an any-subset model takes it: context entries and target entries."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int

from mtjax import frontier as frontier_lib
from mtjax.display.short import short_repr
from mtjax.models import Config, TransformerConfig, XLNetConfig, position_of
from mtjax.types import Frontier


class Canvas(struct.PyTreeNode):
  """Entries of B texts. An entry is context, a target, or neither: padding, which no entry sees.

  Where the model has a sink (`sink_token`), it is entry 0, which is context: a query without other
  context then sees one entry that says nothing of the text, where it would see none at all.
  """

  token: Int[Array, "B L"]  # meaningless at a target that is not decided yet
  position: Int[Array, "B L"]
  is_context: Bool[Array, "B L"]
  is_target: Bool[Array, "B L"]

  __repr__ = short_repr

  @property
  def size(self) -> int:
    return self.token.shape[1]


def has_query(config: Config) -> bool:
  """Returns True if the model has an embedding of query entries: its own, or that of a mask."""
  return "query" in config.extra_names or banned_token(config) is not None


def query_token(config: Config) -> int:
  """Returns the id of the learned embedding of query entries, which have no token yet.

  It is the one called "query" or, in a model without that, as SetDLM, the mask.
  """
  banned = banned_token(config)
  return config.special_id("query") if banned is None else banned


def banned_token(config: Config) -> int | None:
  """Returns the token that no entry may become: a query's, if it is one of the vocabulary."""
  if isinstance(config, TransformerConfig) and "query" not in config.extra_names:
    return config.mask_id
  return None


def sink_token(config: Config) -> int | None:
  """Returns the id of the entry that all others always see, or None if the model has none."""
  return config.special_id("sink") if "sink" in config.extra_names else None


def num_sinks(config: Config) -> int:
  """Returns the number of entries before a text: 1 in a model with a sink."""
  return int(sink_token(config) is not None)


def is_set_diffusion(config: Config) -> bool:
  """Returns True if the model's entries see each other as in Set Diffusion (2607.01775)."""
  return isinstance(config, TransformerConfig) and config.any_subset_rows == "set_diffusion"


def has_causal_context(config: Config) -> bool:
  """Returns True if a context entry sees those before it alone: Set Diffusion, and Eso-LM (B)."""
  return isinstance(config, TransformerConfig) and config.any_subset_rows != "two_stream"


def context_rank(
  config: Config, number: Int[Array, "B L"], count: Int[Array, "B 1"]
) -> Int[Array, "B L"]:
  """Returns the ranks of context entries, numbered from 0: at most 0, which is the last one's.

  Entries of one rank see each other; with a causal context each sees those before it.
  """
  return number - count + 1 if has_causal_context(config) else jnp.zeros_like(number)


def query_entries(config: Config, position: Int[Array, "B Q"], rank: Int[Array, "B Q"]) -> Frontier:
  """Returns query entries that see contents of lower rank and, if they are masks, themselves.

  Whether a query is a mask is the model's way (`any_subset_rows`). What any of them predicts does
  not depend on which others are in the pass.
  """
  token = jnp.full_like(position, query_token(config))
  return frontier_lib.query(token, position, rank, own=has_causal_context(config))


def draft_entries(
  config: Config,
  position: Int[Array, "B Q"],
  rank: Int[Array, "B Q"],
  valid: Bool[Array, "B Q"] | None = None,
) -> Frontier:
  """Returns the queries of a pass whose contents all have lower ranks than `rank`, which is one.

  They are those of `query_entries`, but in Eso-LM (B) each also sees the valid ones before it, as
  that model was trained: the first predicts what it would alone.
  """
  if isinstance(config, TransformerConfig) and config.any_subset_rows == "eso":
    token = jnp.full_like(position, query_token(config))
    return frontier_lib.mask_chain(token, position, rank, valid=valid)
  return query_entries(config, position, rank)


def make_canvas(
  config: Config,
  token: Int[np.ndarray, "B L"],
  is_target: Bool[np.ndarray, "B L"],
  valid: Bool[np.ndarray, "B L"] | None = None,
  *,
  segment: Int[np.ndarray, "B L"] | None = None,
) -> Canvas:
  """Returns the canvas of texts; if the model has a sink, it stands first (L + 1 entries).

  `valid` is false in padding (None: there is no padding). `segment`: the number, from 0, of the
  text that an entry belongs to, for an XLNet (None: all belong to one). Raises ValueError for a
  model that is no any-subset model with a query, for shapes that differ, for targets in padding,
  for context ids outside the vocabulary, for more entries than the model has positions, and for
  segments below 0 or for another kind of model.
  """
  if not has_query(config):
    raise ValueError(
      "this is no any-subset model: it has no query embedding ('query' among extra_names, which is "
      f"{config.extra_names}) and no mask in its place (mask_id)"
    )
  if config.predicts != "any_subset":
    raise ValueError(f"this is no any-subset model: its config predicts {config.predicts!r}")
  token, is_target = np.asarray(token), np.asarray(is_target, bool)
  valid = np.ones_like(is_target) if valid is None else np.asarray(valid, bool)
  if not token.shape == is_target.shape == valid.shape:
    raise ValueError(
      f"token {token.shape}, is_target {is_target.shape} and valid {valid.shape} must have one "
      "shape"
    )
  if (is_target & ~valid).any():
    raise ValueError("an entry is both a target and padding")
  known = token[valid & ~is_target]
  if known.size and (known.min() < 0 or known.max() >= config.vocab_size):
    raise ValueError(
      f"context tokens must be within 0..{config.vocab_size - 1}: blanks must be targets"
    )
  sink = sink_token(config)
  if sink is not None:
    edge = ((0, 0), (1, 0))
    token = np.pad(token, edge, constant_values=sink)
    is_target, valid = np.pad(is_target, edge), np.pad(valid, edge, constant_values=True)
  if token.shape[1] > config.max_position:
    raise ValueError(
      f"the canvas has {token.shape[1]} entries, but the model has {config.max_position} positions"
    )
  position = np.broadcast_to(np.arange(token.shape[1]), token.shape)
  if segment is not None:
    position = position_of(position, _checked_segment(config, np.asarray(segment), valid))
  return Canvas(
    jnp.asarray(token, jnp.int32),
    jnp.asarray(position, jnp.int32),
    jnp.asarray(valid & ~is_target),
    jnp.asarray(is_target),
  )


def _checked_segment(config, segment, valid) -> Int[np.ndarray, "B L"]:
  if not isinstance(config, XLNetConfig):
    raise ValueError("only an XLNet takes segments: this model has none")
  if segment.shape != valid.shape:
    raise ValueError(f"segment {segment.shape} and token {valid.shape} must have one shape")
  segment = np.where(valid, segment, 0)
  known = np.isin(segment, np.arange(XLNetConfig.segments))
  if not known.all():
    raise ValueError(f"segments must be whole numbers from 0 to {XLNetConfig.segments - 1}")
  return segment.astype(np.int32)


def check_canvas(config: Config, canvas: Canvas) -> None:
  """Raises ValueError for entries that are both context and target, and for context without tokens.

  `make_canvas` makes no such canvas; one that was changed afterwards may be one.
  """
  is_context, is_target, token = (
    np.asarray(x) for x in (canvas.is_context, canvas.is_target, canvas.token)
  )
  if (is_context & is_target).any():
    raise ValueError("an entry is both context and target")
  if sink_token(config) is not None:
    is_context = is_context & ~((token == sink_token(config)) & (np.arange(canvas.size) == 0))
  known = token[is_context]
  if (known == query_token(config)).any():
    raise ValueError("a context entry holds the query token: it is a blank, and must be a target")
  if known.size and (known.min() < 0 or known.max() >= config.vocab_size):
    raise ValueError(f"context tokens must be within 0..{config.vocab_size - 1}")


def two_stream(
  config: Config,
  canvas: Canvas,
  rank: Int[Array, "B L"],
  query: Int[Array, "B Q"],
  document: Int[Array, "B L"] | None = None,
) -> Frontier:
  """Returns contents of the whole canvas, then a query for each index in `query` (-1: none).

  `rank` is as `mtjax.anysubset.orders` makes it; the query of a target entry sees the contents of
  lower rank (2504.20456, sec. 4). Context entries see each other, or those before them in Set
  Diffusion. With `document` (numbers that rise along the canvas), entries of different documents do
  not see each other.
  """
  valid, is_context = canvas.is_context | canvas.is_target, canvas.is_context
  number = jnp.cumsum(is_context, axis=1) - 1
  of_context = context_rank(config, number, number[:, -1:] + 1)
  rank = jnp.where(is_context, of_context, rank)
  contents = frontier_lib.content(canvas.token, canvas.position, rank, valid=valid)
  place = jnp.maximum(query, 0)

  def at(values):
    return jnp.take_along_axis(values, place, axis=1)

  joint = frontier_lib.concatenate(contents, query_entries(config, at(canvas.position), at(rank)))
  if document is None:
    return joint
  number = jnp.concatenate([document, at(document)], axis=1)
  apart = frontier_lib.block_local(joint.token, number).replace(position=joint.position)
  return frontier_lib.both(joint, apart)
