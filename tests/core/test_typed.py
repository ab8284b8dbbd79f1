"""The run-time checks of `make test-typed` are on where they are asked for."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.types import Verdict

pytestmark = pytest.mark.skipif(
  not os.environ.get("MTJAX_TYPED"), reason="the checks are off; make test-typed switches them on"
)


def _is_refused(call):
  with pytest.raises(TypeError, match="Type-check error"):
    call()


def test_arguments_are_checked():
  token = jnp.zeros((2, 3), jnp.int32)
  assert frontier.causal(token).size == 3
  for wrong in (token[0], token.astype(float), np.zeros((2, 3), np.int32)):
    _is_refused(lambda wrong=wrong: frontier.causal(wrong))
  _is_refused(lambda: frontier.causal(token, length=jnp.zeros((3,), jnp.int32)))


def test_fields_are_checked_but_where_jax_rebuilds_a_tree():
  one = jnp.int32(1)
  verdict = Verdict(path=jnp.zeros((2,), jnp.int32), count=one, token=one)
  _is_refused(lambda: verdict.replace(count=jnp.ones((2,), jnp.int32)))
  assert jax.tree.map(lambda x: x.ndim, verdict).path == 1
