"""The products of a forward pass alone: all packed weights of a model, one after the other."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtjax.models import Model, Params
from mtjax.models.linear import Linear
from mtjax.models.stacking import Stacks, of_layer, stack_name

# Times this, a product is added to the inputs of the next one: they do not change, and XLA leaves
# out none.
_NOTHING = 1e-30


def products_alone(model: Model, params: Params, entries: int) -> Callable[[], Array]:
  """Returns a function that multiplies `entries` rows with all packed weights, layer by layer.

  The rest of a pass's time is attention, norms, and the calls between products. params: packed
  (`mtjax.models.quantize.pack`). The first call has been made: it compiles.
  """
  c, shapes = model.config, model.shapes()
  stacks = Stacks.of(c)

  def multiply(params: Params, carry: Float[Array, ""]) -> Float[Array, ""]:
    def layer(own: Params, like: Params, carry):
      for node, kernel in _linears(own, like):
        carry = _product(node, *kernel, entries, carry)
      return carry

    if stacks.count:

      def period(carry, index):
        for kind in range(stacks.kinds):
          name = stack_name(kind)
          carry = layer(of_layer(params[name], index), shapes[name], carry)
        return carry, None

      carry, _ = jax.lax.scan(period, carry, jnp.arange(stacks.count))
    for index in range(stacks.layers, len(c.layers)):
      name = f"layer_{index}"
      carry = layer(params[name], shapes[name], carry)
    return _product(params["head"], c.dim, c.vocab_size, entries, carry)

  run = jax.jit(multiply)
  once = lambda: run(params, jnp.float32(0))  # noqa: E731
  jax.block_until_ready(once())
  return once


def _product(node: Params, inputs: int, outputs: int, entries: int, carry):
  weights = {name: node[name] for name in ("packed", "scale") if name in node}
  x = jnp.ones((1, entries, inputs)) + _NOTHING * carry
  y: Any = Linear(outputs, False, jnp.float32).apply({"params": weights}, x)
  return y[0, 0, 0]


def _linears(own: Any, like: Any) -> Iterator[tuple[Params, tuple[int, int]]]:
  """Yields each packed node with the inputs and outputs of its kernel, whose shapes are `like`."""
  if "packed" in own:
    yield own, like["kernel"].shape[-2:]
    return
  for name, node in own.items():
    if isinstance(node, dict):
      yield from _linears(node, like[name])
