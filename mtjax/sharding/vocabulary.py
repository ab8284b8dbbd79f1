"""Arrays over the vocabulary, split by tokens: what is computed of parts of them.

Inside `over_vocabulary` a device has the logits of its own tokens, a part of [..., V], and the
operations here exchange numbers per row in place of rows of V. Everywhere else they are the plain
operations of one device: nothing is added to a program that is not split.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Shaped

from mtjax.sharding.split import Split, mesh_here, spec_of

# (axis, number of parts) where what is traced has parts of the vocabulary; None: it is whole.
_PARTS = jax.make_user_context(None)


# Letters of an argument: for all its arrays, or by the names of fields; other fields have rows.
Letters = str | Mapping[str, str]


def over_vocabulary(
  function: Callable[..., Any],
  *arrays: PyTree,
  roles: Sequence[Letters],
  out: PyTree,
  split: Split = Split(),
) -> Any:
  """Returns `function(*arrays)`, which each device computes of its rows and of its tokens.

  `roles` has the letters of each argument as `spec_of` reads them ("v" is the vocabulary): for all
  its arrays, or by the names of fields in a mapping, and "b" for what that does not name. `out`:
  those of the result. The function must use the operations of this module for what concerns all
  tokens, and results without "v" must be the same on all devices of a row. Without a mesh of
  several devices, where the axis does not divide the vocabulary, and inside itself it is a plain
  call.
  """
  mesh = mesh_here()
  axes = {letter: spec_of(letter, split)[0] for letter in "bv"}
  if mesh is None or mesh.shape.get(axes["v"], 1) == 1:
    return function(*arrays)
  leaves, tree = jax.tree.flatten(arrays)
  letters = [one for x, role in zip(arrays, roles, strict=True) for one in _letters(x, role)]
  fits = {x for x in "bv" if _divides(mesh.shape.get(axes[x], 1), x, leaves, letters)}
  if "v" not in fits:
    return function(*arrays)

  def spec(role):
    return spec_of("".join(x if x in fits else "." for x in role), split)

  def on_a_device(*parts):
    with _PARTS((axes["v"], mesh.shape[axes["v"]])):
      return function(*jax.tree.unflatten(tree, parts))

  specs = tuple(map(spec, letters)), jax.tree.map(spec, out)
  return jax.shard_map(
    on_a_device, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False
  )(*leaves)


def _letters(tree: PyTree, role: Letters) -> list[str]:
  """Returns the letters of each array of an argument."""
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  if isinstance(role, str):
    return [role] * len(paths)
  fields = [[getattr(key, "name", "") for key in path] for path in paths]
  return [next((role[name] for name in names if name in role), "b") for names in fields]


def _divides(parts: int, letter: str, leaves, letters) -> bool:
  """Returns whether all dimensions of that letter have equal parts."""
  pairs = zip(leaves, letters, strict=True)
  return all(x.shape[role.index(letter)] % parts == 0 for x, role in pairs if letter in role)


def is_split() -> bool:
  """Returns whether arrays over the vocabulary are parts here."""
  return _PARTS.value is not None


def parts() -> int:
  """Returns the number of parts of the vocabulary, 1 where it is whole."""
  return _PARTS.value[1] if is_split() else 1


def size(x: Shaped[Array, "*N V"]) -> int:
  """Returns the number of tokens of the whole vocabulary."""
  return x.shape[-1] * parts()


def first_token(x: Shaped[Array, "*N V"]) -> Int[Array, ""] | int:
  """Returns the id of the first token of this part."""
  return jax.lax.axis_index(_PARTS.value[0]) * x.shape[-1] if is_split() else 0


def tokens(x: Shaped[Array, "*N V"]) -> Int[Array, " V"]:
  """Returns the ids of the tokens of this part."""
  return jnp.arange(x.shape[-1]) + first_token(x)


def own_part(whole: Shaped[Array, "*N W"]) -> Shaped[Array, "*N V"]:
  """Returns the numbers of this part's tokens, of those of all W tokens."""
  if not is_split():
    return whole
  width = whole.shape[-1] // parts()
  first = jax.lax.axis_index(_PARTS.value[0]) * width
  return jax.lax.dynamic_slice_in_dim(whole, first, width, axis=-1)


def summed(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
  """Returns the sum of an array over the parts."""
  return jax.lax.psum(x, _PARTS.value[0]) if is_split() else x


def largest(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
  """Returns the largest of an array over the parts, element by element."""
  return jax.lax.pmax(x, _PARTS.value[0]) if is_split() else x


def smallest(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
  """Returns the smallest of an array over the parts, element by element."""
  return jax.lax.pmin(x, _PARTS.value[0]) if is_split() else x


def side_by_side(x: Shaped[Array, "*N C"]) -> Shaped[Array, "*N D"]:
  """Returns the arrays of all parts one after the other, in the order of the parts."""
  if not is_split():
    return x
  return jax.lax.all_gather(x, _PARTS.value[0], axis=x.ndim - 1, tiled=True)


def total(x: Shaped[Array, "*N V"], keepdims: bool = False) -> Shaped[Array, "..."]:
  """Returns the sum over the vocabulary."""
  return summed(jnp.sum(x, axis=-1, keepdims=keepdims))


def softmax(logits: Float[Array, "*N V"]) -> Float[Array, "*N V"]:
  """Returns the probabilities of this part's tokens."""
  if not is_split():
    return jax.nn.softmax(logits, axis=-1)
  best = largest(jnp.max(logits, axis=-1, keepdims=True))
  mass = jnp.exp(logits - best)
  return mass / total(mass, keepdims=True)


def log_softmax(logits: Float[Array, "*N V"]) -> Float[Array, "*N V"]:
  """Returns the log-probabilities of this part's tokens."""
  if not is_split():
    return jax.nn.log_softmax(logits, axis=-1)
  shifted = logits - largest(jnp.max(logits, axis=-1, keepdims=True))
  return shifted - jnp.log(total(jnp.exp(shifted), keepdims=True))


def at(x: Shaped[Array, " V"], token: Int[Array, "*C"]) -> Shaped[Array, "*C"]:
  """Returns x[token] for tokens of the whole vocabulary; only the part that has a token reads."""
  if not is_split():
    return x[token]
  place, here = _place(x, token)
  return summed(jnp.where(here, x[place], 0))


def along(x: Shaped[Array, "*N V"], token: Int[Array, "*N C"]) -> Shaped[Array, "*N C"]:
  """Returns `jnp.take_along_axis(x, token, axis=-1)` for tokens of the whole vocabulary."""
  if not is_split():
    return jnp.take_along_axis(x, token, axis=-1)
  place, here = _place(x, token)
  return summed(jnp.where(here, jnp.take_along_axis(x, place, axis=-1), 0))


def index_of(x: Shaped[Array, "*N V"], token: Int[Array, "*C"]) -> Int[Array, "*C"]:
  """Returns where a token stands in this part, for writes: V, past the end, if not in it.

  Writes with it need mode="drop".
  """
  if not is_split():
    return token
  place, here = _place(x, token)
  return jnp.where(here, place, x.shape[-1])


def _place(x, token):
  place = token - first_token(x)
  here = (place >= 0) & (place < x.shape[-1])
  return jnp.where(here, place, 0), here
