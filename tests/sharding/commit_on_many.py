"""Run by test_decoding.py in a process with eight CPU devices; prints {case: count}.

A case counts collectives, or entries that differ from those of one device.
"""

import collections
import json
import re
import sys
from unittest import mock

import jax

jax.config.update("jax_num_cpu_devices", 8)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import mtjax.cache  # noqa: E402
from mtjax import frontier, sharding  # noqa: E402
from mtjax.cache import allocate  # noqa: E402
from mtjax.diffusion.denoising.caches import canvas_keys  # noqa: E402
from mtjax.diffusion.denoising.caches.canvas_keys import scattered  # noqa: E402
from mtjax.models import Model, TransformerConfig, uniform_layers  # noqa: E402
from mtjax.types import LayerKV  # noqa: E402

HEADS, SLOTS, WIDTH, ENTRIES, PATH = 4, 32, 8, 6, 5
# Runs that begin, end and lie at the edges of four parts of eight slots; the last one does not fit.
LENGTHS, COUNTS = (0, 5, 7, 8, 14, 16, 27, 30), (0, 5, 1, 3, 5, 5, 5, 5)
# (mesh, rows).
MESHES = {
  "rows and heads": ("data:4,model:2", 8),
  "rows, heads and slots": ("data:2,model:2,sequence:2", 8),
  "slots of one row": ("model:2,sequence:4", 1),
  "rows that do not divide": ("data:2,sequence:4", 7),
  "slots that do not divide": ("sequence:3", 2),
}
COLLECTIVE = re.compile(
  r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)[-a-z]*\("
)


def collectives(compiled) -> collections.Counter[str]:
  """Returns the collectives of a program with the number of elements of the largest result."""
  found = collections.Counter()
  for result, kind in COLLECTIVE.findall(compiled.as_text()):
    shapes = re.findall(r"\w+\[([\d,]*)\]", result)
    found[kind] = max(
      found[kind], *(int(np.prod([int(n) for n in one.split(",") if n])) for one in shapes)
    )
  return found


def arguments(rows: int):
  rng = np.random.default_rng(0)

  def keys_and_values(shape):
    return (LayerKV(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))),)

  cache = allocate(batch=rows, capacity=SLOTS, heads=[HEADS], head_dim=WIDTH)
  old = keys_and_values(cache.layers[0].k.shape)
  fresh = keys_and_values((rows, HEADS, ENTRIES, WIDTH))
  lengths, counts = (jnp.array(x[-rows:], jnp.int32) for x in (LENGTHS, COUNTS))
  position = jnp.asarray(rng.integers(0, 99, (rows, ENTRIES)), jnp.int32)
  path = jnp.asarray(rng.integers(0, ENTRIES, (rows, PATH)), jnp.int32)
  return cache.replace(layers=old, length=lengths), (fresh, position, path, counts)


def committed(mesh, cache, rest):
  """Returns the program that commits to a cache on the mesh, and its result."""
  fresh, *others = rest
  with sharding.on_mesh(mesh):
    cache = jax.device_put(jax.tree.map(jnp.copy, cache), mtjax.cache.cache_shardings(cache, mesh))
    put = lambda x, role: jax.device_put(x, sharding.sharding_of(x.shape, role, mesh))  # noqa: E731
    fresh = jax.tree.map(lambda x: put(x, "bh.."), fresh)
    others = [put(x, "b") for x in others]

    def commit(cache, *rest):
      return cache.commit(*rest)

    program = jax.jit(commit, donate_argnums=0).lower(cache, fresh, *others).compile()
    return program, program(cache, fresh, *others)


def differing(found, expected) -> int:
  """Returns how many entries differ on any device: a whole array has as many copies as devices."""
  return sum(int(np.sum(np.asarray(x.data) != expected[x.index])) for x in found.addressable_shards)


def commits() -> dict[str, float]:
  out = {}
  for name, (text, rows) in MESHES.items():
    mesh = sharding.parse_mesh(text)
    cache, rest = arguments(rows)
    expected = jax.jit(lambda cache, *rest: cache.commit(*rest))(cache, *rest)
    assert not np.array_equal(expected.layers[0].k, cache.layers[0].k)
    for way, in_runs in (("scattered", False), ("in runs", True)):
      with mock.patch.object(mtjax.cache, "_in_runs", lambda batch, answer=in_runs: answer):
        program, found = committed(mesh, cache, rest)
      pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
      out[f"differ: {name}, {way}"] = float(sum(differing(a, np.asarray(b)) for a, b in pairs))
      out[f"collectives: {name}, {way}"] = float(sum(collectives(program).values()))
      own = jax.tree.leaves(mtjax.cache.cache_shardings(cache, mesh))
      out[f"moved: {name}, {way}"] = float(
        sum(
          not x.sharding.is_equivalent_to(place, x.ndim)
          for x, place in zip(jax.tree.leaves(found), own, strict=True)
        )
      )
  return out


def overwritten(text: str, rows: int):
  """Returns a program that writes entries of canvases over others, its result, and what is right.

  `scattered` writes at any slots of a row, where a commit appends.
  """
  mesh, (cache, (fresh, *_)) = sharding.parse_mesh(text), arguments(rows)
  rng = np.random.default_rng(1)
  index = np.stack([rng.permutation(SLOTS)[:ENTRIES] for _ in range(rows)]).astype(np.int32)
  given = cache.layers[0].k, fresh[0].k, jnp.asarray(index), jnp.asarray(index % 3 > 0)
  expected = jax.jit(lambda *given: scattered(*given))(*given)
  assert not np.array_equal(expected, given[0])
  roles = ("bhs.", "bh..", "b.", "b.")
  with sharding.on_mesh(mesh):
    parts = [
      jax.device_put(x, sharding.sharding_of(x.shape, role, mesh, sharding.CACHE))
      for x, role in zip(given, roles, strict=True)
    ]
    program = jax.jit(lambda *given: scattered(*given)).lower(*parts).compile()
    return program, program(*parts), np.asarray(expected)


def overwrites() -> dict[str, float]:
  out = {}
  for name, mesh in MESHES.items():
    program, found, expected = overwritten(*mesh)
    out[f"differ: {name}, over others"] = float(differing(found, expected))
    out[f"collectives: {name}, over others"] = float(sum(collectives(program).values()))
  with mock.patch.object(canvas_keys, "on_parts", split_by_xla):
    program, *_ = overwritten(*MESHES["rows, heads and slots"])
  out["seen: XLA's own split of writes over others"] = float(sum(collectives(program).values()))
  return out


def split_by_xla(function, *arrays, **_):
  return function(0, *arrays)


def mistakes() -> dict[str, float]:
  """Without `on_parts` XLA splits the writes itself, and sends fresh entries or the whole cache."""
  out = {}
  for name in ("rows, heads and slots", "slots of one row"):
    text, rows = MESHES[name]
    cache, rest = arguments(rows)
    with mock.patch.object(mtjax.cache, "on_parts", split_by_xla):
      program, _ = committed(sharding.parse_mesh(text), cache, rest)
    out[f"seen: XLA's own split of {name}"] = float(collectives(program)["all-gather"])
  return out


CONFIG = TransformerConfig(
  vocab_size=16, dim=32, heads=4, kv_heads=2, head_dim=8, mlp_dim=32, layers=uniform_layers(1)
)
CAPACITY = 1024


def rounds() -> dict[str, float]:
  """The forward pass of a tree and its commit: the largest array that devices gather.

  A device's part of the keys of a long cache is the limit: everything else is far smaller.
  """
  model, out = Model(CONFIG), {}
  params = model.init(jax.random.key(0))

  def step(params, cache, token, parent):
    seen = frontier.tree(token, parent, start=cache.length, valid=jnp.ones_like(token, bool))
    output = model.forward(params, seen, cache)
    path = jnp.broadcast_to(jnp.arange(3), (token.shape[0], 3))
    count = jnp.argmax(output.logits[:, 0], axis=-1) % 4
    return cache.commit(output.kv, seen.position, path, count)

  def largest(text, rows) -> float:
    mesh = sharding.parse_mesh(text)
    tree = jnp.zeros((rows, 4), jnp.int32), jnp.tile(jnp.array([-1, 0, 0, 1]), (rows, 1))
    with sharding.on_mesh(mesh):
      cache = model.allocate(rows, CAPACITY)
      places = sharding.row_shardings(tree, mesh, rows)
      arrays = sharding.shard_params(params, mesh), cache, *jax.device_put(tree, places)
      program = jax.jit(lambda *given: step(*given), donate_argnums=1).lower(*arrays).compile()
    keys = cache.layers[0].k
    return max(collectives(program).values(), default=0) / keys.addressable_shards[0].data.size

  for text, rows in (("data:2,model:4", 4), ("data:2,model:2,sequence:2", 2), ("sequence:8", 1)):
    out[f"share of a device's keys in a collective: {text}"] = largest(text, rows)
  with mock.patch.object(mtjax.cache, "on_parts", split_by_xla):
    out["seen: a round whose writes XLA splits"] = largest("sequence:8", 1)
  return out


def main() -> None:
  json.dump(commits() | overwrites() | mistakes() | rounds(), sys.stdout)


if __name__ == "__main__":
  main()
