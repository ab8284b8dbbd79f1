"""The loss of a model that fills masks and corrects tokens, each in its place (LLaDA2.1)."""

import dataclasses

import jax
import jax.numpy as jnp

from mtjax.diffusion.noising.edited_drafts import random_tokens
from mtjax.models import Model, Params
from mtjax.train.losses.editing.settings import EditNoise, countable, place_logits
from mtjax.train.losses.masked_diffusion import masked_network, with_ends
from mtjax.train.losses.objective import Batch, Loss, Total, next_token


@dataclasses.dataclass(frozen=True)
class TokenEdits(EditNoise):
  """Settings of the mixture of mask-to-token and token-to-token training: those of `EditNoise`."""


def token_edits_loss(model: Model, settings: TokenEdits) -> Loss:
  """Returns nats per token of masks' tokens (M2T) and of the right tokens in a draft (T2T).

  (LLaDA2.1 2602.08676, sec. 3.1.) Of a text with masks at random times, each token without a mask
  is replaced by a random one with probability `replaced`. The loss is the sum of the
  cross-entropies of all right tokens, at masks with the weight of masked diffusion, and at tokens,
  wrong or right, with `edit_weight`: at a right one the model learns to keep it. The sum is divided
  by the number of tokens. With `draft_weight` there is a second pass, in which the model's own
  argmax, without a gradient, stands where masks were (the paper's multi-turn forward, whose details
  it does not give; 2606.17175 trains so). `EditTokens` of `mtjax.diffusion.revise` decodes what is
  learned. It is no bound of the likelihood: the context of a mask has wrong tokens.

  A model of blocks sees clean blocks before a noisy one, and each block has its own time; in other
  models each document has. Shifted models are trained as in `block_diffusion`. The loss reports the
  shares `masked` and `wrong`, and its parts `loss/mask_to_token`, `loss/token_to_token` and
  `loss/own_drafts`. Raises ValueError for a model without a mask.
  """
  network = masked_network(model)
  size, mask, vocab = network.block_length, network.mask_id, model.config.vocab_size
  schedule = settings.noise()

  def prepare(batch: Batch, key, step) -> Batch:
    del step
    time_key, lot_key, token_key, text_key = jax.random.split(key, 4)
    batch = batch if network.shifted else with_ends(batch, text_key)
    t, counts = settings.times(time_key, batch, size), countable(network, batch)
    lots = jax.random.uniform(lot_key, (2, *t.shape))
    masked = counts & (lots[0] < schedule.masked(t))
    replaced = counts & (lots[1] < settings.replaced)
    other = random_tokens(token_key, t.shape, vocab, (mask,))
    noisy = jnp.where(masked, mask, jnp.where(replaced, other, batch["tokens"]))
    each = jnp.asarray(schedule.weight(t))
    return {**batch, "counts": counts, "masked": masked, "noisy": noisy, "each": each}

  def total(params: Params, batch: Batch) -> Total:
    counts, masked, noisy = batch["counts"], batch["masked"], batch["noisy"]
    token = jnp.where(counts, batch["tokens"], 0)
    logits = place_logits(network, params, noisy, batch)
    stands = counts & ~masked
    parts = {
      "loss/mask_to_token": next_token(logits, token, jnp.where(masked, batch["each"], 0.0)).sum,
      "loss/token_to_token": next_token(logits, token, settings.edit_weight * stands).sum,
    }
    if settings.draft_weight:
      own = jax.lax.stop_gradient(jnp.argmax(logits, axis=-1))
      logits = place_logits(network, params, jnp.where(masked, own, noisy), batch)
      parts["loss/own_drafts"] = next_token(logits, token, settings.draft_weight * counts).sum
    nats = jnp.sum(jnp.stack(list(parts.values())))
    wrong = stands & (noisy != batch["tokens"])
    parts |= {"masked": _count(masked), "wrong": _count(wrong)}
    return Total(nats, _count(counts), parts)

  return Loss(total, prepare)


def _count(flags):
  return jnp.sum(flags).astype(jnp.float32)
