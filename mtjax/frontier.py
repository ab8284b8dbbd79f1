"""Builders of frontiers: one per attention pattern, each a choice of stamps and intervals.

Every mask of the library is written here and nowhere else, as 3T integers that say who sees whom.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels_pallas.frontier_attention import visible
from mtjax.types import FOREVER, Frontier

# The position of the first entry: one for all rows, or one per row.
Start = Int[Array, " B"] | Int[Array, ""] | int


def as_dense(frontier: Frontier) -> Bool[Array, "B T T"]:
  """Returns the mask of a frontier, for tests: [b, i, j] is true iff entry i sees entry j."""
  return visible(frontier.stamp, frontier.lo, frontier.hi, hidden=frontier.hidden, own=frontier.own)


def causal(
  token: Int[Array, "B T"],
  *,
  start: Start = 0,
  length: Int[Array, " B"] | None = None,
) -> Frontier:
  """Returns a text from left to right, with entry i at position start + i.

  Entries >= length are padding.
  """
  index = _index(token)
  return _frontier(token, index + _column(start), index, index, FOREVER, _valid(token, length))


def tree(
  token: Int[Array, "B N"],
  parent: Int[Array, "B N"],
  *,
  start: Start = 0,
  valid: Bool[Array, "B N"] | None = None,
) -> Frontier:
  """Returns a token tree or forest: a node sees its ancestors and itself.

  A node has the position start + depth. `parent[b, n]` is a smaller index than n, or -1 for a root,
  which follows the committed prefix. Stamps are preorder indices and intervals are subtrees. All of
  it is computed from arrays, so a new topology of the same size needs no compilation. No entry sees
  an invalid node.
  """
  if token.shape != parent.shape:
    raise ValueError(f"token {token.shape} and parent {parent.shape} must have the same shape")
  preorder, size, depth = preorder_intervals(parent, valid)
  return _frontier(token, depth + _column(start), preorder, preorder, preorder + size, valid)


def preorder_intervals(
  parent: Int[Array, "B N"], valid: Bool[Array, "B N"] | None = None
) -> tuple[Int[Array, "B N"], Int[Array, "B N"], Int[Array, "B N"]]:
  """Returns preorder index, subtree size and depth of every node of a forest with parent[n] < n.

  Ancestors come from pointer jumping: O(N^2) elementwise work and log2(N) gathers, no loop over
  nodes.
  """
  batch, nodes = parent.shape
  index = jnp.arange(nodes)
  if valid is not None:
    parent = jnp.where(valid, parent, -1)
  # Slot `nodes` is the virtual root above all roots; it points to itself.
  jump = jnp.where(parent < 0, nodes, parent)
  jump = jnp.concatenate([jump, jnp.full((batch, 1), nodes)], axis=1)
  ancestor = jnp.broadcast_to(jnp.eye(nodes + 1, dtype=bool), (batch, nodes + 1, nodes + 1))
  for _ in range(max(nodes, 1).bit_length()):
    ancestor |= jnp.take_along_axis(ancestor, jump[:, :, None], axis=1)
    jump = jnp.take_along_axis(jump, jump, axis=1)
  ancestor = ancestor[:, :nodes, :nodes]
  depth = jnp.sum(ancestor, axis=2) - 1
  counted = ancestor if valid is None else ancestor & valid[:, :, None]
  size = jnp.sum(counted, axis=1)
  elder = (parent[:, :, None] == parent[:, None, :]) & (index < index[:, None])
  before = jnp.sum(jnp.where(elder, size[:, None, :], 0), axis=2)
  preorder = depth + jnp.sum(jnp.where(ancestor, before[:, None, :], 0), axis=2)
  return preorder.astype(jnp.int32), size.astype(jnp.int32), depth.astype(jnp.int32)


def packed(token: Int[Array, "B T"], document: Int[Array, "B T"]) -> Frontier:
  """Returns several documents per row, each causal; entries of different documents are hidden.

  Documents are runs of equal numbers, and number 0 is padding. Positions restart at 0 in each.
  """
  batch, size = token.shape
  index = _index(token)
  first = jnp.concatenate([jnp.ones((batch, 1), bool), document[:, 1:] != document[:, :-1]], axis=1)
  begin = jnp.max(
    jnp.where(first[:, None, :] & (index[:, None, :] <= index[:, :, None]), index[:, None, :], 0),
    axis=2,
  )
  later = first[:, None, :] & (index[:, None, :] > index[:, :, None])
  end = jnp.min(jnp.where(later, index[:, None, :], size), axis=2)
  return _frontier(token, index - begin, index, index, end, document > 0)


def bidirectional(
  token: Int[Array, "B T"],
  *,
  start: Start = 0,
  length: Int[Array, " B"] | None = None,
) -> Frontier:
  """Returns a canvas in which all entries see each other (MDLM, LLaDA, Dream, block decoding).

  Entry i stands at position start + i; entries >= length are padding.
  """
  index = _index(token)
  zero = jnp.zeros_like(index)
  return _frontier(token, index + _column(start), zero, zero, FOREVER, _valid(token, length))


def content(
  token: Int[Array, "B T"],
  position: Int[Array, "B T"],
  rank: Int[Array, "B T"],
  *,
  valid: Bool[Array, "B T"] | None = None,
) -> Frontier:
  """Returns known entries of an any-subset model: rank r sees ranks <= r (2504.20456, sec. 4).

  Entries of equal rank see each other, so a prompt of one rank is mutually visible.
  """
  return _frontier(token, position, 2 * rank, 2 * rank, FOREVER, valid)


def query(
  token: Int[Array, "B T"],
  position: Int[Array, "B T"],
  rank: Int[Array, "B T"],
  *,
  own: bool = False,
) -> Frontier:
  """Returns query entries (XLNet's g): rank r sees contents of rank < r, and no other sees it.

  With `own` each sees itself too: the masks of Set Diffusion (2607.01775).

  In a draft of an any-subset model all undecided targets have the rank n of the first of them, so
  that each sees exactly the n decided entries.
  """
  stamp = 2 * rank - 1
  frontier = _frontier(token, position, stamp, stamp, stamp, None)
  return frontier.replace(own=jnp.ones(token.shape, bool)) if own else frontier


def mask_chain(
  token: Int[Array, "B T"],
  position: Int[Array, "B T"],
  rank: Int[Array, "B T"],
  *,
  valid: Bool[Array, "B T"] | None = None,
) -> Frontier:
  """Returns the masks of a pass of Eso-LM (B) (2506.01928), all of one rank, from first to last.

  Each sees contents of lower rank, the masks before it and itself. In one frontier with them there
  must be no contents of this rank or a higher one: those would see masks.
  """
  stamp = 2 * rank - 1 + _index(token)
  frontier = _frontier(token, position, stamp, stamp, FOREVER, valid)
  return frontier.replace(own=jnp.ones(token.shape, bool))


def two_stream(
  token: Int[Array, "B L"],
  query_token: Int[Array, "B L"],
  position: Int[Array, "B L"],
  rank: Int[Array, "B L"],
) -> Frontier:
  """Returns contents (0..L-1) and queries (L..2L-1) of one order, for training and scoring."""
  return concatenate(content(token, position, rank), query(query_token, position, rank))


def block_diffusion(
  noisy: Int[Array, "B L"], clean: Int[Array, "B L"], block: Int[Array, "B L"]
) -> Frontier:
  """Returns noisy and then clean entries for block diffusion (BD3-LM 2503.09573, sec. 3.2).

  A noisy entry of block b sees noisy block b and the clean blocks < b; a clean one sees clean
  blocks <= b. One block over everything is a bidirectional canvas; blocks of one token make the
  clean half causal.
  """
  index = _index(noisy)
  noise = _frontier(noisy, index, 2 * block, 2 * block, 2 * block + 1, None)
  known = _frontier(clean, index, 2 * block + 1, 2 * block + 1, FOREVER, None)
  return concatenate(noise, known)


def causal_canvases(
  noisy: Int[Array, "B L"], clean: Int[Array, "B L"], begin: Int[Array, "B L"]
) -> Frontier:
  """Returns noisy and then clean entries for canvases after causal text (DiffusionGemma).

  `begin` is the index at which the canvas of an entry begins. A noisy entry sees its canvas and the
  clean entries before it; a clean one sees clean entries up to itself. Canvases of one token make
  both halves causal.
  """
  index = _index(noisy)
  noise = _frontier(noisy, index, 2 * begin, 2 * begin, 2 * begin + 1, None)
  known = _frontier(clean, index, 2 * index + 1, 2 * index + 1, FOREVER, None)
  return concatenate(noise, known)


def block_causal(token: Int[Array, "B T"], block: Int[Array, "B T"]) -> Frontier:
  """Returns entries that see their own block and all earlier ones (scale-causal, set-causal)."""
  return _frontier(token, _index(token), block, block, FOREVER, None)


def block_local(token: Int[Array, "B T"], block: Int[Array, "B T"]) -> Frontier:
  """Returns entries that see their own block only (word-local masks)."""
  return _frontier(token, _index(token), block, block, block + 1, None)


def with_vectors(
  frontier: Frontier, vector: Float[Array, "B T D"], soft: Bool[Array, "B T"] | None = None
) -> Frontier:
  """Returns the frontier with vectors in place of tokens where `soft` is true (None: everywhere).

  Positions and who sees whom stay as they are. Vectors that the frontier had are replaced. Raises
  ValueError for shapes that do not fit the frontier and for other dtypes than bool and floats.
  """
  soft = jnp.ones(frontier.token.shape, bool) if soft is None else jnp.asarray(soft)
  out = frontier.replace(vector=jnp.asarray(vector), soft=soft)
  check_vectors(out)
  return out


def check_vectors(frontier: Frontier, width: int | None = None) -> None:
  """Raises ValueError unless a frontier's vectors, if any, fit its entries and are `width` wide."""
  vector, soft, shape = frontier.vector, frontier.soft, frontier.token.shape
  if vector is None and soft is None:
    return
  if vector is None or soft is None:
    raise ValueError("a frontier has both `vector` and `soft` or neither: use with_vectors")
  if soft.shape != shape or soft.dtype != bool:
    raise ValueError(f"`soft` must be bool of shape {shape}, got {soft.dtype} of {soft.shape}")
  if vector.ndim != 3 or vector.shape[:2] != shape:
    raise ValueError(f"`vector` must have the shape {(*shape, width or 'D')}, got {vector.shape}")
  if width is not None and vector.shape[2] != width:
    raise ValueError(
      f"the frontier has vectors of width {vector.shape[2]}, and the model's embeddings have "
      f"{width}: they must be equal"
    )
  if not jnp.issubdtype(vector.dtype, jnp.floating):
    raise ValueError(f"`vector` must hold floats, got {vector.dtype}")


def concatenate(*parts: Frontier) -> Frontier:
  """Returns one frontier with the entries of all parts; stamps are compared across parts.

  Parts with vectors and parts without may be mixed. Raises ValueError when the numbers of interval
  dimensions or the widths of vectors differ, for parts with `hidden` (an index would change its
  meaning), and if some of the parts have targets but not all.
  """
  if len({part.stamp.shape[1] for part in parts}) != 1:
    raise ValueError("the parts must have the same number of interval dimensions")
  if any(part.hidden is not None for part in parts):
    raise ValueError("set `hidden` after concatenating: it is an index into the whole frontier")
  targets = [part.target for part in parts if part.target is not None]
  if len(targets) not in (0, len(parts)):
    raise ValueError(
      "some of the parts say which position an entry predicts (`target`): all must, or none"
    )
  target = jnp.concatenate(targets, axis=1) if targets else None

  def join(name):
    return jnp.concatenate([getattr(part, name) for part in parts], axis=-1)

  def join_flags(name):
    flags = [getattr(part, name) for part in parts]
    if all(flag is None for flag in flags):
      return None
    pairs = zip(parts, flags, strict=True)
    return jnp.concatenate(
      [jnp.zeros_like(part.token, bool) if flag is None else flag for part, flag in pairs], axis=1
    )

  joined = (join(name) for name in ("token", "position", "stamp", "lo", "hi"))
  return Frontier(
    *joined,
    own=join_flags("own"),
    target=target,
    vector=_joined_vectors(parts),
    soft=join_flags("soft"),
  )


def _joined_vectors(parts) -> Float[Array, "B T D"] | None:
  """Returns the vectors of all parts, with zeros for parts without; None if no part has any."""
  vectors = [part.vector for part in parts if part.vector is not None]
  if not vectors:
    return None
  widths = sorted({vector.shape[2] for vector in vectors})
  if len(widths) > 1:
    raise ValueError(f"the parts have vectors of different widths, {widths}")
  dtype = jnp.result_type(*vectors)
  return jnp.concatenate(
    [
      jnp.zeros((*part.token.shape, widths[0]), dtype) if part.vector is None else part.vector
      for part in parts
    ],
    axis=1,
  )


def both(one: Frontier, other: Frontier) -> Frontier:
  """Returns `one` with fewer visible entries: only those that are visible in both frontiers.

  An example is an order inside each of several documents.
  """
  if one.token.shape != other.token.shape:
    raise ValueError(
      f"the frontiers must have the same shape, got {one.token.shape} and {other.token.shape}"
    )

  def join(name):
    return jnp.concatenate([getattr(one, name), getattr(other, name)], axis=1)

  return one.replace(stamp=join("stamp"), lo=join("lo"), hi=join("hi"))


def _frontier(token, position, stamp, lo, hi, valid) -> Frontier:
  hi = jnp.broadcast_to(hi, token.shape)
  if valid is not None:
    hi = jnp.where(valid, hi, lo)

  def label(x):
    return jnp.broadcast_to(x, token.shape).astype(jnp.int32)[:, None, :]

  position = jnp.broadcast_to(position, token.shape).astype(jnp.int32)
  return Frontier(token, position, label(stamp), label(lo), label(hi))


def _index(token):
  return jnp.broadcast_to(jnp.arange(token.shape[1], dtype=jnp.int32), token.shape)


def _column(start):
  return jnp.asarray(start, jnp.int32).reshape(-1, 1)


def _valid(token, length):
  return None if length is None else _index(token) < _column(length)
