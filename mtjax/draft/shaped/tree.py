"""A tree of a draft model whose shape is data, drafted level by level."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax.draft.model.tree_state import Reading, TreeState, processed_logits, warm_rows
from mtjax.draft.protocol import Context, Round, WithDraftModel, draft_keys
from mtjax.draft.shaped.shape import Shape
from mtjax.models import Model
from mtjax.trees import chain
from mtjax.trees.siblings import siblings, top_k_siblings
from mtjax.types import Draft, DraftScheme, TokenTree


class ShapedTreeState(struct.PyTreeNode):
  tree: TreeState
  shape: Shape


@dataclasses.dataclass(frozen=True)
class ShapedTree(WithDraftModel):
  """`ModelTree` of any shape of up to `size` nodes, `depth` deep, `children` per node.

  One pass of the draft model per level: it reads all nodes down to this level, and has logits for
  at most (size - 1) // 2 of them, as every node that is read for its children has one. Greedy
  requests draft a node's most probable tokens by rank, as DELTA. Requests that sample draft without
  replacement, by the order among siblings: Gumbel top-k of `children` samples, of which a node
  takes the first ones. Shapes follow from past rounds (`mtjax.decode.planned`), not from what was
  sampled, so drafts keep their distribution.
  """

  model: Model
  size: int = 8
  depth: int = 6
  children: int = 4

  def __post_init__(self):
    if self.size < 2:
      raise ValueError(f"size must be at least 2 (the root and a draft), got {self.size}")
    if min(self.depth, self.children) < 1:
      raise ValueError(
        f"depth and children must be at least 1, got {self.depth} and {self.children}"
      )
    if self.children > self.model.config.vocab_size:
      raise ValueError(
        f"a node has up to {self.children} children, but the vocabulary has "
        f"{self.model.config.vocab_size} tokens"
      )

  @property
  def height(self) -> int:
    return min(self.depth, self.size - 1)

  @property
  def breadth(self) -> int:
    return min(self.children, self.size - 1)

  @property
  def scheme(self) -> DraftScheme:
    return DraftScheme.WITHOUT_REPLACEMENT

  def with_shape(self, state: ShapedTreeState, shape: Shape) -> ShapedTreeState:
    # What is deeper or broader than this drafter goes is left out.
    fits = (shape.depth <= self.height) & (jnp.maximum(shape.rank, shape.order) < self.breadth)
    return state.replace(shape=jax.tree.map(jnp.asarray, shape.replace(there=shape.there & fits)))

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> ShapedTreeState:
    sizes = dict(max_new=max_new, nodes=self.size, reads=self.size - 1)
    return self._started(TreeState.start(self.model, params, prompt, length, **sizes))

  def start_unread(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> ShapedTreeState:
    sizes = dict(max_new=max_new, nodes=self.size, reads=self.size - 1)
    return self._started(TreeState.start_unread(self.model, prompt, length, **sizes))

  def _started(self, tree: TreeState) -> ShapedTreeState:
    first = Shape.of(chain(self.height), self.size)
    return ShapedTreeState(tree, jax.tree.map(jnp.asarray, first))

  def propose(
    self, params: PyTree, state: ShapedTreeState, context: Context
  ) -> tuple[Draft, ShapedTreeState]:
    request, shape, size = context.request, state.shape, self.size
    greedy = request.rules.temperature is None
    scheme = DraftScheme.DELTA if greedy else self.scheme
    keys = None if greedy else draft_keys(context, self.height)
    batch, place = context.last.shape[0], shape.rank if greedy else shape.order
    above, node = jnp.maximum(shape.parent, 0), jnp.arange(size)
    # [m, n]: n is a child of m.
    child = (shape.parent == node[:, None]) & shape.there
    inner = jnp.any(child, axis=1)
    width = max((size - 1) // 2, 1)

    def sample(depth, logits):
      """Returns tokens of children by place, which are valid, and their probs q: of all rows."""
      logits = processed_logits(logits, request)
      if greedy:
        return *top_k_siblings(logits, self.breadth), None
      q = jax.nn.softmax(logits, axis=-1)
      key = jax.lax.dynamic_index_in_dim(keys, depth, 1, keepdims=False)
      count = (self.breadth,) * logits.shape[1]
      return *siblings(scheme, logits, q, count, key, warm_rows(request)), q

    def grow(depth, drafted, parents, logits):
      """Adds the children of the nodes `parents` [R], R >= 1; others there are ignored."""
      token, valid, q_rows = drafted
      candidates, real, q = sample(depth, logits)
      # The place in `parents` of every node's parent.
      row = jnp.argmax(parents == above[:, None], axis=1)
      mine = shape.there & (shape.depth == depth + 1)
      token = jnp.where(mine, candidates[:, row, place], token)
      valid = jnp.where(mine, real[:, row, place] & valid[:, above], valid)
      if q is not None:
        here = (inner & (shape.depth == depth))[parents]
        index = jnp.where(here, parents, size)
        q_rows = q_rows.at[:, index].set(q, mode="drop")
      return token, valid, q_rows

    tree, logits = state.tree.catch_up(self.model, params, context)
    is_root = node == 0
    token = jnp.where(is_root, context.last[:, None], 0)
    valid = jnp.broadcast_to(is_root, (batch, size))
    q_rows = None if greedy else jnp.zeros((batch, size, logits.shape[-1]), logits.dtype)
    drafted = grow(0, (token, valid, q_rows), jnp.zeros((1,), jnp.int32), logits)

    def deepen(carry):
      depth, drafted, _, _ = carry
      # The inner nodes of this level, then others.
      parents = jnp.argsort(~(inner & (shape.depth == depth)), stable=True)[:width]
      output, position = self._read(params, tree, drafted, shape, depth, parents)
      kv = jax.tree.map(lambda old, new: new.astype(old.dtype), tree.reading.kv, output.kv)
      return depth + 1, grow(depth, drafted, parents, output.logits), kv, position

    height = shape.height
    carry = (jnp.int32(1), drafted, tree.reading.kv, tree.reading.position)
    passes, (token, valid, q_rows), kv, position = jax.lax.while_loop(
      lambda carry: carry[0] < height, deepen, carry
    )
    read = shape.there & (node > 0) & (shape.depth < height)
    entry = jnp.broadcast_to(jnp.where(read, node - 1, -1), (batch, size))
    tree = tree.replace(reading=Reading(kv, position, entry))
    forwards = jnp.broadcast_to(passes, (batch,))
    draft = Draft(self._tree(shape, token, valid), scheme, q_rows, forwards=forwards)
    return draft, state.replace(tree=tree)

  def update(self, state: ShapedTreeState, round: Round) -> ShapedTreeState:
    return state.replace(tree=state.tree.update(round))

  def _read(self, params, tree: TreeState, drafted, shape: Shape, depth, parents):
    """Returns a pass over all nodes down to `depth`, with logits after `parents`."""
    token, valid, _ = drafted
    batch = token.shape[0]
    parent = jnp.broadcast_to(shape.parent[1:] - 1, (batch, self.size - 1))
    there = valid[:, 1:] & (shape.depth <= depth)[1:]
    frontier = frontier_lib.tree(
      token[:, 1:], jnp.maximum(parent, -1), start=tree.cache.length, valid=there
    )
    rows = jnp.broadcast_to(jnp.maximum(parents - 1, 0), (batch, parents.shape[0]))
    return self.model.forward(params, frontier, tree.cache, rows), frontier.position

  def _tree(self, shape: Shape, token, valid: Bool[Array, "B N"]) -> TokenTree:
    def rows(values):
      return jnp.broadcast_to(values, token.shape).astype(jnp.int32)

    return TokenTree(
      token=token,
      parent=rows(shape.parent),
      depth=rows(shape.depth),
      order=rows(jnp.where(shape.there, shape.order, 0)),
      valid=valid,
      height=self.height,
      breadth=self.breadth,
    )
