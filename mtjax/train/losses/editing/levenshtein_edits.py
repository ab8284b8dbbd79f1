"""The loss of a model that also deletes tokens and makes room for missing ones (LLaDA2.2)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.noising.edited_drafts import (
  block_edit_labels,
  block_windows,
  moved_draft,
  random_tokens,
)
from mtjax.models import Model, Params
from mtjax.train.losses.editing.settings import EditNoise, check_share, countable, place_logits
from mtjax.train.losses.masked_diffusion import masked_network, with_ends
from mtjax.train.losses.objective import Batch, Loss, Total, next_token


@dataclasses.dataclass(frozen=True)
class LevenshteinEdits(EditNoise):
  """Settings of Levenshtein editing: those of `EditNoise` and four more.

  `missing`: the probability that a token is not in the draft, which the model has to make room for.
  `surplus`: that a random one stands before it, which it has to delete. `delete_id` and
  `insert_id`: the two tokens of the vocabulary that say so; no text may have them.
  """

  missing: float = 0.05
  surplus: float = 0.05
  delete_id: int = -1
  insert_id: int = -1

  def __post_init__(self):
    super().__post_init__()
    check_share("missing", self.missing)
    check_share("surplus", self.surplus)


def levenshtein_edits_loss(model: Model, settings: LevenshteinEdits) -> Loss:
  """Returns nats per token of what each place of a draft has to say: a token, DELETE or INSERT.

  (LLaDA2.2, sec. 3.1.) Of each block some tokens are masked at a random time, and some of the
  others are replaced. Some tokens, masked or not, are missing, and some have a random token
  before them: the rest moves, and the block keeps its length. Labels come from a longest common
  subsequence of the draft and the text (`edit_labels`). The loss is the sum of their
  cross-entropies: at tokens with `edit_weight`, at masks of tokens with the weight of masked
  diffusion, and at masks that came to the end of a block with 1. A mask learns tokens only: what
  the decoder (`Levenshtein` of `mtjax.diffusion.revise`) does not let it say has no chance in the
  loss, either. The sum is divided by the number of tokens. With `draft_weight` there is a second
  pass, in which the model's own argmax, without a gradient, stands where masks were, and labels
  are made anew from that draft, as in the paper's later rounds. The paper's first round has
  ordinary labels, and where its errors come from it does not say; here random errors have the
  labels of edits from the first pass on. It is no bound of the likelihood.

  The loss reports `masked`, and `wrong`, the share of places whose token does not stay, and its
  parts as in `token_edits`. Raises ValueError for a model without a mask, without blocks, or with
  shifted logits, and for ids that are not two tokens of its vocabulary.
  """
  network = masked_network(model)
  _check(network, settings)
  size, mask, schedule = network.block_length, network.mask_id, settings.noise()
  ids = dict(mask_id=mask, delete_id=settings.delete_id, insert_id=settings.insert_id)
  vocab = model.config.vocab_size

  def prepare(batch: Batch, key, step) -> Batch:
    del step
    text_key, time_key, lot_key, token_key = jax.random.split(key, 4)
    batch = with_ends(batch, text_key)
    token, counts = batch["tokens"], countable(network, batch)
    t = settings.times(time_key, batch, size)
    lots = jax.random.uniform(lot_key, (4, *t.shape))
    masked = counts & (lots[0] < schedule.masked(t))
    shares = (settings.replaced, settings.missing, settings.surplus)
    replaced, missing, surplus = (
      counts & (lot < share) for lot, share in zip(lots[1:], shares, strict=True)
    )
    wrong, other = random_tokens(token_key, (2, *t.shape), vocab, tuple(ids.values()))
    noisy = jnp.where(masked, mask, jnp.where(replaced, wrong, token))
    windows = block_windows(batch["position"], batch["segment"], size)
    draft = moved_draft(noisy, masked, missing, surplus, other, windows, mask_id=mask)
    label = block_edit_labels(draft.token, token, windows, **ids)
    each = jnp.where(draft.masked, jnp.asarray(schedule.weight(t)), 1.0)
    return {**batch, "noisy": draft.token, "label": label, "each": each, "counts": counts}

  def total(params: Params, batch: Batch) -> Total:
    noisy, label = batch["noisy"], batch["label"]
    valid, is_mask = batch["segment"] > 0, noisy == mask
    edits = (label == settings.delete_id) | (label == settings.insert_id)
    learned = valid & (label != mask) & ~(is_mask & edits)
    logits = _without_edits(place_logits(network, params, noisy, batch), is_mask, settings)
    stands = learned & ~is_mask
    parts = {
      "loss/mask_to_token": _nats(logits, label, batch["each"] * (learned & is_mask)),
      "loss/token_to_token": _nats(logits, label, settings.edit_weight * stands),
    }
    if settings.draft_weight:
      own = jax.lax.stop_gradient(jnp.argmax(logits, axis=-1))
      draft = jnp.where(is_mask, own, noisy)
      windows = block_windows(batch["position"], batch["segment"], size)
      again = block_edit_labels(draft, batch["tokens"], windows, **ids)
      logits = place_logits(network, params, draft, batch)
      weight = settings.draft_weight * (valid & (again != mask))
      parts["loss/own_drafts"] = _nats(logits, again, weight)
    nats = jnp.sum(jnp.stack(list(parts.values())))
    parts |= {"masked": _count(valid & is_mask), "wrong": _count(stands & (label != noisy))}
    return Total(nats, _count(batch["counts"]), parts)

  return Loss(total, prepare)


def _check(network: MaskedNetwork, settings: LevenshteinEdits) -> None:
  if not network.block_length:
    raise ValueError(
      "the objective 'levenshtein_edits' trains models of blocks, which keep their lengths: "
      "model.block_length must be at least 1, got 0"
    )
  if network.shifted:
    raise ValueError(
      "the objective 'levenshtein_edits' trains models whose entries predict their own places: "
      "model.alignment must be 'aligned', got 'shifted'"
    )
  ids, vocab = (settings.delete_id, settings.insert_id), network.model.config.vocab_size
  if not all(0 <= one < vocab for one in ids) or len({*ids, network.mask_id}) < 3:
    raise ValueError(
      "levenshtein_edits.delete_id and levenshtein_edits.insert_id must be two tokens of the "
      f"model's vocabulary of {vocab}, and not its mask: got {ids[0]} and {ids[1]}"
    )


def _without_edits(
  logits: Float[Array, "B L V"], is_mask: Bool[Array, "B L"], settings: LevenshteinEdits
) -> Float[Array, "B L V"]:
  """Returns logits in which masks cannot say DELETE or INSERT."""
  token = jnp.arange(logits.shape[-1])
  edits = (token == settings.delete_id) | (token == settings.insert_id)
  return jnp.where(is_mask[:, :, None] & edits, -jnp.inf, logits)


def _nats(
  logits: Float[Array, "B L V"], label: Int[Array, "B L"], weight: Float[Array, "B L"]
) -> Float[Array, ""]:
  # A label without a weight may be no token of the vocabulary, or one without a chance.
  return next_token(logits, jnp.where(weight > 0, label, 0), weight).sum


def _count(flags: Bool[Array, "B L"]) -> Float[Array, ""]:
  return jnp.sum(flags).astype(jnp.float32)
