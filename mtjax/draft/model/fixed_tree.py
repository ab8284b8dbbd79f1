"""A small model of the same vocabulary drafts a tree of a fixed shape, level by level."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from mtjax.draft.model.tree_state import Reading, TreeState, processed_logits, warm_rows
from mtjax.draft.protocol import Context, Round, WithDraftModel, draft_keys
from mtjax.models import Model
from mtjax.trees import Topology
from mtjax.trees.named import get_topology
from mtjax.trees.siblings import siblings, top_k_siblings
from mtjax.types import Draft, DraftScheme


@dataclasses.dataclass(frozen=True)
class ModelTree(WithDraftModel):
  """A tree of shape `topology` whose siblings are chosen by `scheme` from the draft model's q.

  Params are the draft model's. q is at the request's temperature and filters. One pass of the draft
  model per level: it reads the level's nodes that have children, and those above them again, since
  only what is accepted goes into its cache. DELTA takes a node's most probable tokens by
  `Topology.rank`, as every greedy request does; schemes that sample (`mtjax.trees.siblings`) take
  `Topology.order`. Where q has fewer tokens than a node has children, the later ones are missing.

  Raises ValueError for a root alone and for more children than the vocabulary has tokens.
  """

  model: Model
  topology: Topology
  scheme: DraftScheme = DraftScheme.WITHOUT_REPLACEMENT

  def __post_init__(self):
    if self.topology.height < 1:
      raise ValueError("a tree of the root alone drafts nothing")
    candidates = max(self.topology.rank) + 1
    if candidates > self.model.config.vocab_size:
      raise ValueError(
        f"the tree takes {candidates} tokens after one node, but the vocabulary has "
        f"{self.model.config.vocab_size}"
      )

  @classmethod
  def of_names(
    cls,
    model: Model,
    topology: str | Sequence[int] = (3, 2, 1, 1),
    scheme: str = DraftScheme.WITHOUT_REPLACEMENT.value,
  ) -> "ModelTree":
    """Builds from a config: a shape as in `mtjax.trees.named`, a scheme by its value."""
    return cls(model, get_topology(topology), DraftScheme(scheme))

  @property
  def fixed_shape(self) -> Topology:
    return self.topology

  @property
  def height(self) -> int:
    return self.topology.height

  @property
  def breadth(self) -> int:
    return self.topology.breadth

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> TreeState:
    plan = _plan(self.topology)
    nodes, reads = self.topology.size, plan[-1].reads
    return TreeState.start(
      self.model, params, prompt, length, max_new=max_new, nodes=nodes, reads=reads
    )

  def propose(self, params: PyTree, state: TreeState, context: Context) -> tuple[Draft, TreeState]:
    request, plan = context.request, _plan(self.topology)
    greedy = request.rules.temperature is None
    scheme = DraftScheme.DELTA if greedy else self.scheme
    warm = warm_rows(request)
    keys = None if scheme is DraftScheme.DELTA else draft_keys(context, len(plan))

    def sample(place, level, logits):
      """Returns the tokens of the level's children, which are valid, and their probs q."""
      logits = processed_logits(logits, request)
      if scheme is DraftScheme.DELTA:
        token, valid = top_k_siblings(logits, level.candidates)
        chosen = level.slot * level.candidates + level.rank
        q = None
      else:
        q = jax.nn.softmax(logits, axis=-1)
        token, valid = siblings(scheme, logits, q, level.count, keys[:, place], warm)
        chosen = level.slot * token.shape[-1] + level.order
      token, valid = (x.reshape(x.shape[0], -1)[:, chosen] for x in (token, valid))
      return token, valid & valid_above[:, level.parent], q

    state, logits = state.catch_up(self.model, params, context)
    tokens = context.last[:, None]  # by level
    valid_above = valid = jnp.ones_like(tokens, bool)
    q_rows, output, position = [], None, state.reading.position
    for place, level in enumerate(plan):
      if place > 0:
        entry = tokens[:, level.read]
        output, position = state.read(
          self.model, params, entry, jnp.array(level.above)[None], len(level.count)
        )
        logits = output.logits
      token, valid_above, q = sample(place, level, logits)
      tokens = jnp.concatenate([tokens, token], axis=1)
      valid = jnp.concatenate([valid, valid_above], axis=1)
      q_rows.append(q)
    by_node = np.argsort([node for nodes in self.topology.levels() for node in nodes])
    tree = self.topology.tree(tokens[:, by_node], valid[:, by_node])
    q = None
    if scheme is not DraftScheme.DELTA:
      inner = np.concatenate([level.node for level in plan])
      rows = jnp.concatenate(q_rows, axis=1)
      q = jnp.zeros((*tokens.shape, rows.shape[-1]), rows.dtype).at[:, inner].set(rows)
    reading = state.reading
    if output is not None:
      reading = Reading(
        jax.tree.map(lambda old, new: new.astype(old.dtype), reading.kv, output.kv),
        position,
        jnp.broadcast_to(jnp.asarray(_entries(self.topology)), tokens.shape),
      )
    forwards = jnp.full(context.last.shape, len(plan), jnp.int32)
    return Draft(tree, scheme, q, forwards=forwards), state.replace(reading=reading)

  def update(self, state: TreeState, round: Round) -> TreeState:
    return state.update(round)


class _Level(NamedTuple):
  """The plan for the children of one depth. Indices are numpy arrays: a shape is static."""

  node: np.ndarray  # nodes of this depth that have children
  count: tuple[int, ...]  # numbers of their children
  candidates: int  # number of most probable tokens to compute per node
  slot: np.ndarray  # per child: index of its parent in `node`
  parent: np.ndarray  # per child: index of its parent in the nodes of this depth
  rank: np.ndarray  # per child
  order: np.ndarray  # per child
  read: np.ndarray  # nodes that the model reads for it: those with children, by level
  above: np.ndarray  # per read node: index of its parent among them, -1: the root

  @property
  def reads(self) -> int:
    return len(self.read)


@functools.cache
def _plan(topology: Topology) -> tuple[_Level, ...]:
  levels, children = topology.levels(), topology.children()
  by_level = [node for nodes in levels for node in nodes]
  place = {node: index for index, node in enumerate(by_level)}
  read: list[int] = []
  plan = []
  for depth in range(topology.height):
    inner = [node for node in levels[depth] if children[node]]
    read += inner if depth else []
    entry = {node: index for index, node in enumerate(read)}
    below = levels[depth + 1]
    parents = [topology.parent[node] for node in below]
    rank = np.array([topology.rank[node] for node in below])
    plan.append(
      _Level(
        node=np.array(inner),
        count=tuple(len(children[node]) for node in inner),
        candidates=int(rank.max()) + 1,
        slot=np.array([inner.index(parent) for parent in parents]),
        parent=np.array([levels[depth].index(parent) for parent in parents]),
        rank=rank,
        order=np.array([topology.order[node] for node in below]),
        read=np.array([place[node] for node in read], np.int32),
        above=np.array([entry.get(topology.parent[node], -1) for node in read], np.int32),
      )
    )
  return tuple(plan)


def _entries(topology: Topology) -> np.ndarray:
  """Returns the index of each node among those read; -1 for the root and for leaves."""
  out = np.full(topology.size, -1, np.int32)
  read = [node for level in _plan(topology)[1:] for node in level.node]
  out[read] = np.arange(len(read))
  return out
