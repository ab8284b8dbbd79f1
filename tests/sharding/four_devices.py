"""Run by test_mesh.py in a process with four CPU devices; prints {name: max abs difference}."""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from configs.train.tiny import tiny  # noqa: E402
from kernels_pallas.frontier_attention import frontier_attention  # noqa: E402
from mtjax import checkpoints, frontier, sharding  # noqa: E402
from mtjax.decode.generation import generate  # noqa: E402
from mtjax.decode.speculative import Speculative  # noqa: E402
from mtjax.draft import Trie, TrieStore  # noqa: E402
from mtjax.models import Model, TransformerConfig, uniform_layers  # noqa: E402
from mtjax.models.quantize import to_int8  # noqa: E402
from mtjax.train import train  # noqa: E402

CONFIG = TransformerConfig(
  vocab_size=32,
  dim=16,
  heads=4,
  kv_heads=2,
  head_dim=8,
  mlp_dim=24,
  layers=uniform_layers(1),
  qkv_bias=True,
  mlp_bias=True,
  extra_embeddings=2,
)
FAMILIES = {
  "gated": CONFIG,
  "untied": dataclasses.replace(CONFIG, tied=False),
  "gpt2": dataclasses.replace(
    CONFIG, norm="layer", mlp="plain", activation="gelu_tanh", learned_positions=16, out_bias=True
  ),
}
# As in transformers: stored [out, in], and for GPT-2 [in, out] with one tensor for q, k and v.
IMPORTED = {
  "llama": dataclasses.replace(CONFIG, qkv_bias=False, mlp_bias=False, extra_embeddings=0),
  "gpt2": dataclasses.replace(
    FAMILIES["gpt2"],
    kv_heads=4,
    head_dim=4,
    layers=uniform_layers(1, rope=None),
    max_position=16,
    extra_embeddings=0,
  ),
}


def difference(one, other) -> float:
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


def distinct(params):
  """Returns parameters without zeros or ones, so that a bias in the wrong column is seen."""
  rng = np.random.default_rng(1)

  def moved(x):
    return jnp.asarray(np.asarray(x) + 0.1 * rng.normal(size=x.shape), x.dtype)

  return jax.tree.map(moved, params)


def rows(count=4, length=8):
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, CONFIG.vocab_size, (count, length + 1)).astype(np.int32)
  segment = np.cumsum(rng.random((count, length)) < 0.2, axis=1).astype(np.int32) + 1
  weight = (rng.random((count, length)) < 0.8).astype(np.float32)
  return dict(tokens=tokens[:, :-1], targets=tokens[:, 1:], segment=segment, weight=weight)


def logits(mesh) -> dict[str, float]:
  out = {}
  batch = rows()
  for name, config in FAMILIES.items():
    model = Model(config)
    plain = distinct(model.init(jax.random.key(0)))
    for kind, params in (("float", plain), ("int8", to_int8(plain))):

      @jax.jit
      def forward(params, batch, model=model):
        return model.forward(params, frontier.packed(batch["tokens"], batch["segment"])).logits

      expected = forward(params, batch)
      found = forward(
        sharding.shard_params(params, mesh), jax.device_put(batch, sharding.batch_sharding(mesh))
      )
      out[f"logits {name} {kind}"] = difference(expected, found)
  return out


def continued(folder: Path) -> float:
  """Compares a run that begins on one device and continues, from its checkpoint, on 2 x 2."""
  config = tiny()
  config.model.update(heads=2, kv_heads=2)
  (folder / "text.txt").write_text("four devices are one " * 20)
  config.data.update(sources=(f"file:{folder}/text.txt",), cache_dir=str(folder))
  config.optimizer.name = "adamw"
  config.update(steps=4, warmup=1, decay=0, accumulate=2)
  _, expected = train(config, folder / "one")
  config.steps = 2
  train(config, folder / "two")
  config.update(steps=4, mesh="data:2,model:2")
  _, found = train(config, folder / "two")
  spread = found["layer_0"]["attention"]["qkv"]["kernel"].sharding.spec
  assert spread == sharding.P(None, sharding.MODEL), f"qkv ended as {spread}"
  return difference(expected, found)


def imported(mesh, folder: Path, config: TransformerConfig) -> float:
  """Compares a folder read directly to the mesh with one read to a device and sharded."""
  model = Model(config)
  checkpoints.save(folder, model, distinct(model.init(jax.random.key(0))))
  expected = sharding.shard_params(checkpoints.load(folder)[1], mesh)
  _, found = checkpoints.load(folder, mesh=mesh)
  places = [jax.tree.map(lambda x: x.sharding, tree) for tree in (expected, found)]
  assert places[0] == places[1], places
  return difference(expected, found)


def attention(mesh) -> float:
  keys = jax.random.split(jax.random.key(2), 3)
  q, k, v = (
    jax.random.normal(key, shape)
    for key, shape in zip(keys, [(4, 6, 4, 8), (4, 2, 6, 8), (4, 2, 6, 8)], strict=True)
  )
  f = frontier.causal(jnp.zeros((4, 6), jnp.int32), length=jnp.array([6, 3, 1, 5]))

  def kernel(q, k, v, stamp, lo, hi):
    return frontier_attention(q, None, None, None, k, v, stamp, lo, hi)[0]

  over = sharding.over_heads(
    kernel, mesh, in_axes=("b.h.", "bh..", "bh..", "b..", "b..", "b.."), out_axes="b.h."
  )
  args = (q, k, v, f.stamp, f.lo, f.hi)
  return difference(jax.jit(kernel)(*args), jax.jit(over)(*args))


def attention_in_blocks(mesh) -> dict[str, float]:
  """Compares gradients of packed rows in blocks of 8, and counts the arrays that devices gather."""
  keys = jax.random.split(jax.random.key(2), 3)
  q, k, v = (
    jax.random.normal(key, shape)
    for key, shape in zip(keys, [(4, 20, 4, 8), (4, 2, 20, 8), (4, 2, 20, 8)], strict=True)
  )
  document = jnp.sort(jax.random.randint(jax.random.key(3), (4, 20), 1, 5), axis=1)
  f = frontier.packed(jnp.zeros((4, 20), jnp.int32), document)

  def loss(qkv, stamp, lo, hi):
    q, k, v = qkv
    out, _ = frontier_attention(
      q, None, None, None, k, v, stamp, lo, hi, block_sizes=(8, 8), implementation="xla"
    )
    return jnp.sum(jnp.sin(out))

  expected = jax.jit(jax.grad(loss))((q, k, v), f.stamp, f.lo, f.hi)
  heads = sharding.P(sharding.DATA, sharding.MODEL)
  places = (sharding.P(sharding.DATA, None, sharding.MODEL), heads, heads)
  spread = [
    jax.device_put(x, jax.NamedSharding(mesh, p)) for x, p in zip((q, k, v), places, strict=True)
  ]
  labels = jax.device_put((f.stamp, f.lo, f.hi), sharding.batch_sharding(mesh))
  with jax.set_mesh(mesh):
    program = jax.jit(jax.grad(loss)).lower(tuple(spread), *labels).compile()
  found = program(tuple(spread), *labels)
  gathered = program.as_text().count("all-gather(")
  return {
    "gradient of attention in blocks": difference(expected, found),
    "arrays gathered for attention in blocks": float(gathered),
  }


def drafted_on_the_host(mesh) -> float:
  """Counts tokens that differ from plain decoding, and calls of the store beyond one per round.

  The prefill is a forward, and the first round asks once more; after the last one nobody asks.
  """
  model = Model(dataclasses.replace(CONFIG, extra_embeddings=0))
  params = sharding.shard_params(distinct(model.init(jax.random.key(0))), mesh)
  store = TrieStore(CONFIG.vocab_size)
  calls, draft = [], store.draft
  store.draft = lambda *arguments: calls.append(arguments) or draft(*arguments)
  method = Speculative(Trie(size=4))
  settings = dict(prompts=[[1, 2, 3, 1, 2]], max_tokens=12)
  found = generate(model, params, method=method, method_params=store.handle, **settings)
  expected = generate(model, params, **settings)
  extra = abs(len(calls) - (found.counters["target_forwards"] - 1))
  return float(sum(a != b for a, b in zip(*found.tokens, *expected.tokens, strict=True)) + extra)


def main() -> None:
  assert len(jax.devices()) == 4
  mesh = sharding.make_mesh(2, 2)
  out = logits(mesh)
  out["attention over heads"] = attention(mesh)
  out |= attention_in_blocks(mesh)
  out["drafts of a store on the host"] = drafted_on_the_host(mesh)
  with tempfile.TemporaryDirectory() as folder:
    for name, config in IMPORTED.items():
      out[f"{name} imported"] = imported(mesh, Path(folder) / name, config)
    out["training continued on a mesh"] = continued(Path(folder))
  json.dump(out, sys.stdout)


if __name__ == "__main__":
  main()
