"""A small model out of a large one."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.models.trimming import trim
from tests.compiled import forward
from tests.draft.drafters import LAYERED, LAYERED_PARAMS, VOCAB

IDS = (7, 1, 10, 4)
TEXT = jnp.array([[0, 2, 3, 1]])  # rows of the small model


def test_with_all_neurons_it_is_the_first_layers_at_the_tokens_that_stay():
  model, params = trim(LAYERED, LAYERED_PARAMS, layers=(0, 1), ids=IDS, mlp_dim=16)
  found = forward(model, params, frontier.causal(TEXT)).logits
  text = jnp.asarray(IDS)[TEXT]
  wanted = forward(LAYERED.prefix(2), LAYERED_PARAMS, frontier.causal(text)).logits
  np.testing.assert_allclose(found[..., :-1], wanted[..., list(IDS)], rtol=1e-5, atol=1e-5)
  table = LAYERED_PARAMS["embedding"]["table"]
  others = np.delete(np.asarray(table), IDS, axis=0)
  np.testing.assert_allclose(params["embedding"]["table"][-1], others.mean(0), rtol=1e-5)


def test_neurons_without_weights_go_first():
  layer = LAYERED_PARAMS["layer_0"]
  down = layer["mlp"]["down"]["kernel"].at[jnp.array([0, 5, 9])].set(0)
  layer = layer | {"mlp": layer["mlp"] | {"down": {"kernel": down}}}
  params = LAYERED_PARAMS | {"layer_0": layer}
  results = [
    forward(model, small, frontier.causal(TEXT)).logits
    for model, small in (
      trim(LAYERED, params, layers=(0,), ids=IDS, mlp_dim=neurons) for neurons in (16, 13)
    )
  ]
  np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(layers=(0, 3)), r"layers must be some of 0 to 2, got \[0, 3\]"),
    (dict(layers=()), "layers must be some of 0 to 2"),
    (dict(ids=(1, 1)), "ids must be different ones from 0 to 11"),
    (dict(ids=(VOCAB,)), "ids must be different ones from 0 to 11"),
    (dict(mlp_dim=17), "mlp_dim must be from 1 to 16, got 17"),
  ],
)
def test_what_the_model_lacks_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    trim(LAYERED, LAYERED_PARAMS, **{**dict(layers=(0,), ids=IDS, mlp_dim=4), **change})


def test_untied_heads_are_refused():
  model = dataclasses.replace(LAYERED, config=dataclasses.replace(LAYERED.config, tied=False))
  with pytest.raises(ValueError, match="tied"):
    trim(model, LAYERED_PARAMS | {"head": {}}, layers=(0,), ids=IDS, mlp_dim=4)
