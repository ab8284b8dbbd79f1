"""A chain of a draft model whose length is data."""

import dataclasses

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PyTree

from mtjax.draft.model.chain import ChainState, ModelChain
from mtjax.draft.protocol import Context, Round, WithDraftModel
from mtjax.draft.shaped.shape import Shape
from mtjax.models import Model
from mtjax.types import Draft, DraftScheme


class ShapedChainState(struct.PyTreeNode):
  chain: ChainState
  length: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class ShapedChain(WithDraftModel):
  """`ModelChain` that drafts as many tokens as the shape is high, up to size - 1.

  A shorter chain takes fewer passes of the draft model, in the same program. Of a shape that is no
  chain its height counts alone.
  """

  model: Model
  size: int = 8

  def __post_init__(self):
    if self.size < 2:
      raise ValueError(f"size must be at least 2 (the root and a draft), got {self.size}")

  @property
  def height(self) -> int:
    return self.size - 1

  @property
  def breadth(self) -> int:
    return 1

  @property
  def scheme(self) -> DraftScheme:
    return self._chain.scheme

  @property
  def _chain(self) -> ModelChain:
    return ModelChain(self.model, self.height)

  def with_shape(self, state: ShapedChainState, shape: Shape) -> ShapedChainState:
    return state.replace(length=shape.height)

  def start(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> ShapedChainState:
    chain = self._chain.start(params, prompt, length, max_new=max_new)
    return ShapedChainState(chain, jnp.int32(self.height))

  def start_unread(
    self, params: PyTree, prompt: Int[Array, "B P"], length: Int[Array, " B"], *, max_new: int
  ) -> ShapedChainState:
    chain = self._chain.start_unread(prompt, length, max_new=max_new)
    return ShapedChainState(chain, jnp.int32(self.height))

  def propose(
    self, params: PyTree, state: ShapedChainState, context: Context
  ) -> tuple[Draft, ShapedChainState]:
    draft, chain = self._chain.propose(params, state.chain, context, limit=state.length)
    return draft, state.replace(chain=chain)

  def update(self, state: ShapedChainState, round: Round) -> ShapedChainState:
    return state.replace(chain=self._chain.update(state.chain, round))
