"""A text with blanks, as an any-subset model takes it: what is given, what is asked."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int

from mtjax import frontier as frontier_lib
from mtjax.models import Config, XLNetConfig, position_of
from mtjax.types import Frontier


class Canvas(struct.PyTreeNode):
  """Entries of B texts. An entry is given, asked, or neither: padding, which nobody sees.

  Where the model has a sink (`sink_token`), it is entry 0, given: a query over an empty subset
  then sees one entry that says nothing of the text, where it would see none at all.
  """

  token: Int[Array, "B L"]  # meaningless where asked and not decided yet
  position: Int[Array, "B L"]
  is_context: Bool[Array, "B L"]
  is_target: Bool[Array, "B L"]

  @property
  def size(self) -> int:
    return self.token.shape[1]


def query_token(config: Config) -> int:
  """The id of the learned embedding that stands in a query entry, which has no token yet."""
  return config.special_id("query")


def sink_token(config: Config) -> int | None:
  """The id of the entry that everybody always sees; None for a model that has none."""
  return config.special_id("sink") if "sink" in config.extra_names else None


def make_canvas(
  config: Config,
  token: Int[np.ndarray, "B L"],
  is_target: Bool[np.ndarray, "B L"],
  valid: Bool[np.ndarray, "B L"] | None = None,
  *,
  segment: Int[np.ndarray, "B L"] | None = None,
) -> Canvas:
  """Texts, with the model's sink before them: L + 1 entries then.

  `valid` is false in padding (None: nowhere). `segment`, from 0: of which text an entry is, for an
  XLNet (None: of one). Raises ValueError for a model that is no any-subset model with a query, for
  shapes that differ, for padding that is asked, for given ids outside the vocabulary, for more
  entries than the model has positions, and for segments below 0 or of another model.
  """
  if "query" not in config.extra_names:
    raise ValueError(
      "this is no any-subset model: it has no query embedding ('query' among extra_names, which is "
      f"{config.extra_names})"
    )
  if config.predicts != "any_subset":
    raise ValueError(f"this is no any-subset model: its config predicts {config.predicts!r}")
  token, is_target = np.asarray(token), np.asarray(is_target, bool)
  valid = np.ones_like(is_target) if valid is None else np.asarray(valid, bool)
  if not token.shape == is_target.shape == valid.shape:
    raise ValueError(f"token {token.shape}, asked {is_target.shape} and valid {valid.shape} differ")
  if (is_target & ~valid).any():
    raise ValueError("an entry is both asked and padding")
  known = token[valid & ~is_target]
  if known.size and (known.min() < 0 or known.max() >= config.vocab_size):
    raise ValueError(f"given tokens are outside 0..{config.vocab_size - 1}: blanks must be asked")
  sink = sink_token(config)
  if sink is not None:
    edge = ((0, 0), (1, 0))
    token = np.pad(token, edge, constant_values=sink)
    is_target, valid = np.pad(is_target, edge), np.pad(valid, edge, constant_values=True)
  if token.shape[1] > config.max_position:
    raise ValueError(f"{token.shape[1]} entries, and the model has {config.max_position} positions")
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
    raise ValueError("segments are XLNet's: this model has none")
  if segment.shape != valid.shape:
    raise ValueError(f"segment {segment.shape} and token {valid.shape} differ")
  segment = np.where(valid, segment, 0)
  known = np.isin(segment, np.arange(XLNetConfig.segments))
  if not known.all():
    raise ValueError(f"segments are numbers from 0 to {XLNetConfig.segments - 1}")
  return segment.astype(np.int32)


def check_canvas(config: Config, canvas: Canvas) -> None:
  """ValueError for entries given and asked at once, and given ids that are no tokens.

  `make_canvas` lets no such canvas through; one that was changed since may be one.
  """
  is_context, is_target, token = (
    np.asarray(x) for x in (canvas.is_context, canvas.is_target, canvas.token)
  )
  if (is_context & is_target).any():
    raise ValueError("an entry is both given and asked")
  if sink_token(config) is not None:
    is_context = is_context & ~((token == sink_token(config)) & (np.arange(canvas.size) == 0))
  known = token[is_context]
  if (known == query_token(config)).any():
    raise ValueError("a given entry holds the query token: it is a blank, and must be asked")
  if known.size and (known.min() < 0 or known.max() >= config.vocab_size):
    raise ValueError(f"given tokens are outside 0..{config.vocab_size - 1}")


def two_stream(
  config: Config,
  canvas: Canvas,
  rank: Int[Array, "B L"],
  query: Int[Array, "B Q"],
  document: Int[Array, "B L"] | None = None,
) -> Frontier:
  """Contents of the whole canvas, then a query entry for each index in `query` (-1: none).

  `rank`: as `mtjax.anysubset.orders` makes it; the query of an asked entry sees the contents of
  lower rank (2504.20456, sec. 4). Given entries see each other. With `document`, entries of
  different documents (numbers rising along the canvas) are blind to each other.
  """
  valid = canvas.is_context | canvas.is_target
  contents = frontier_lib.content(canvas.token, canvas.position, rank, valid=valid)
  place = jnp.maximum(query, 0)

  def at(values):
    return jnp.take_along_axis(values, place, axis=1)

  token = jnp.full_like(query, query_token(config))
  queries = frontier_lib.query(token, at(canvas.position), at(rank))
  joint = frontier_lib.concatenate(contents, queries)
  if document is None:
    return joint
  number = jnp.concatenate([document, at(document)], axis=1)
  apart = frontier_lib.block_local(joint.token, number).replace(position=joint.position)
  return frontier_lib.both(joint, apart)
