"""Parts of parameters read from files, as a mesh needs them, for every layout."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.checkpoints import families, layout
from mtjax.checkpoints.reading import StoredTensors
from mtjax.models import Model, TransformerConfig, uniform_layers

LLAMA = TransformerConfig(
  vocab_size=40,
  dim=16,
  heads=4,
  kv_heads=2,
  head_dim=4,
  mlp_dim=24,
  layers=uniform_layers(1),
  qkv_bias=True,
  out_bias=True,
  mlp_bias=True,
  tied=False,
)
OLMO = dataclasses.replace(
  LLAMA, qk_norm="full", norm_placement="post", mlp_bias=False, norm_eps=1e-5
)
GPT2 = dataclasses.replace(
  LLAMA,
  kv_heads=4,
  layers=uniform_layers(1, rope=None),
  norm="layer",
  mlp="plain",
  activation="gelu_tanh",
  learned_positions=2048,
  tied=True,
)


@pytest.fixture(scope="module", params=["llama", "olmo2", "gpt2"])
def exported(request, tmp_path_factory):
  """Returns (folder, recipes, parameters by path)."""
  model = Model(dict(llama=LLAMA, olmo2=OLMO, gpt2=GPT2)[request.param])
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.random(x.shape, dtype=np.float32), model.shapes())
  folder = tmp_path_factory.mktemp("exported") / request.param
  checkpoints.save(folder, model, params)
  family, _ = families.express(model.config)
  assert family.model_type == request.param
  leaves = jax.tree_util.tree_leaves_with_path(params)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
  return folder, family.recipes(model.config), {name(path): leaf for path, leaf in leaves}


def test_recipes_cover_all_parameters(exported):
  _, recipes, parameters = exported
  assert set(recipes) == set(parameters)


@hypothesis.given(data=st.data())
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_block_is_that_part_of_the_parameter(exported, data):
  folder, recipes, parameters = exported
  # Chunks of one or two rows, so that blocks need many reads.
  layout._CHUNK, kept = data.draw(st.sampled_from([1, 150, layout._CHUNK])), layout._CHUNK
  try:
    with StoredTensors(folder) as stored:
      for path, parameter in parameters.items():
        index = []
        for size in parameter.shape:
          start = data.draw(st.integers(0, size - 1))
          index.append(slice(start, data.draw(st.integers(start + 1, size))))
        block = layout.read_block(recipes[path], stored, parameter.shape, index, parameter.dtype)
        np.testing.assert_array_equal(block, parameter[tuple(index)], err_msg=path)
  finally:
    layout._CHUNK = kept
