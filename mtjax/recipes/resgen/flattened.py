"""The autoregressive decoder to compare with: one code a pass, position by position, then depth.

The same transformer with a causal mask over the class and the L * D codes; each code has its own
embedding per depth. A step predicts a code of its depth only. It takes L * D passes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mtjax import frontier as frontier_lib
from mtjax.models import Model, Params
from mtjax.recipes.resgen.network import ResGenConfig


def flattened_model(config: ResGenConfig) -> Model:
  """Returns the causal transformer: code v of depth d is the token d * V + v; classes follow."""
  return config.transformer(
    vocab_size=config.depth * config.codes + config.classes,
    positions=config.tokens + 1,
    predicts="next_token",
  )


def _ids(config: ResGenConfig, codes: Int[Array, "B N"]) -> Int[Array, "B N"]:
  return codes + config.codes * (jnp.arange(codes.shape[1]) % config.depth)


def _of_depth(config: ResGenConfig, logits: Float[Array, "B N V"], depth) -> Float[Array, "B N W"]:
  """Returns the logits of the codes of each entry's depth."""
  codes = logits[..., : config.depth * config.codes]
  codes = codes.reshape(*codes.shape[:-1], config.depth, config.codes)
  chosen = jnp.broadcast_to(depth[:, None, None], (*codes.shape[:2], 1, config.codes))
  return jnp.take_along_axis(codes, chosen, axis=-2)[..., 0, :]


def flattened_loss(
  config: ResGenConfig,
  params: Params,
  tokens: Int[Array, "B L D"],
  label: Int[Array, " B"],
) -> Float[Array, ""]:
  """Returns the cross-entropy in nats per code, exact."""
  codes = tokens.reshape(tokens.shape[0], -1)
  ids = _ids(config, codes)
  label = config.depth * config.codes + label[:, None]
  frontier = frontier_lib.causal(jnp.concatenate([label, ids[:, :-1]], axis=1))
  logits = flattened_model(config).forward(params, frontier).logits
  logits = _of_depth(config, logits, jnp.arange(codes.shape[1]) % config.depth)
  log_probs = jax.nn.log_softmax(logits)
  return -jnp.mean(jnp.take_along_axis(log_probs, codes[..., None], axis=-1))


def flattened_generate(
  config: ResGenConfig,
  params: Params,
  key: Key[Array, ""],
  label: Int[Array, " B"],
  *,
  temperature: float = 1.0,
) -> Int[Array, "B L D"]:
  """Returns sampled codes by L * D passes with an exact cache. Temperature 1 is LOSSLESS.

  Raises ValueError for a temperature of 0 or below.
  """
  if not temperature > 0:
    raise ValueError(f"temperature must be above 0, got {temperature}")
  model, batch = flattened_model(config), label.shape[0]

  def step(carry, index):
    token, cache = carry
    frontier = frontier_lib.causal(token[:, None], start=index)
    out = model.forward(params, frontier, cache)
    logits = _of_depth(config, out.logits, (index % config.depth)[None])[:, 0]
    noise = jax.random.gumbel(jax.random.fold_in(key, index), logits.shape, mode="high")
    code = jnp.argmax(logits / temperature + noise, axis=-1).astype(jnp.int32)
    path, count = jnp.zeros((batch, 1), jnp.int32), jnp.ones((batch,), jnp.int32)
    cache = cache.commit(out.kv, frontier.position, path, count)
    return (code + config.codes * (index % config.depth), cache), code

  first = config.depth * config.codes + label
  carry = (first, model.allocate(batch, config.tokens))
  _, codes = jax.lax.scan(step, carry, jnp.arange(config.tokens))
  return codes.T.reshape(batch, config.length, config.depth)
