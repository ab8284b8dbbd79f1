"""Run-time checks of the annotations of both packages (`make test-typed`)."""

import jax
import jaxtyping

# Whole numbers are floats too (PEP 484).
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
_REGISTER = jax.tree_util.register_dataclass


def switch_on() -> None:
  """Makes every function and dataclass check what it is given; call before their first import."""
  jax.tree_util.register_dataclass = _register
  jaxtyping.install_import_hook(["mtjax", "kernels_pallas"], CHECKER)


def _register(cls, data_fields=None, meta_fields=None, **options):
  """`jax.tree_util.register_dataclass`, but for calls of `__init__` where JAX rebuilds a tree.

  Its leaves may be anything then: mapped axes, shardings, arrays with one dimension more.
  """
  if data_fields is None or meta_fields is None:  # JAX's own classes
    return _REGISTER(cls, data_fields, meta_fields, **options)

  def with_keys(tree):
    keys = map(jax.tree_util.GetAttrKey, data_fields)
    data, meta = flatten(tree)
    return tuple(zip(keys, data, strict=True)), meta

  def flatten(tree):
    return tuple(
      tuple(getattr(tree, name) for name in names) for names in (data_fields, meta_fields)
    )

  def unflatten(meta, data):
    tree = object.__new__(cls)
    for name, value in zip((*data_fields, *meta_fields), (*data, *meta), strict=True):
      object.__setattr__(tree, name, value)
    return tree

  jax.tree_util.register_pytree_with_keys(cls, with_keys, unflatten, flatten)
  return cls
