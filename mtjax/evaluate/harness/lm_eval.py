"""The model `mtjax` of lm-evaluation-harness, which importing this module registers.

    import lm_eval
    import mtjax.evaluate.harness.lm_eval
    lm_eval.simple_evaluate(
      model="mtjax", model_args="pretrained=smollm2,method=lookup", tasks=["gsm8k"]
    )

From a shell: `python -m mtjax.evaluate.harness run --model mtjax ...`, with the flags of lm-eval.
Needs the extra `lm_eval`. Made for release 0.4.13 of lm-eval.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from mtjax.evaluate.harness.chat import (
  chat_tokenizer,
  render_conversation,
  render_open_conversation,
)
from mtjax.evaluate.harness.likelihood import PairScore, pair_scores
from mtjax.evaluate.harness.pairs import (
  TokenPair,
  encode_bare,
  encode_pair,
  encode_prompt,
  rolling_pairs,
)
from mtjax.evaluate.harness.writing import WritingSettings, write_until
from mtjax.models import check_causal
from mtjax.pretrained import load
from mtjax.registry.by_name import method as named_method

try:
  from lm_eval.api.instance import Instance
  from lm_eval.api.model import TemplateLM
  from lm_eval.api.registry import register_model
  from tqdm import tqdm
except ImportError as error:
  raise ImportError(
    f"lm-evaluation-harness is not installed ({error}): `pip install mtjax[lm_eval]`"
  ) from error

_BATCH = 8


@register_model("mtjax")
class MtjaxLM(TemplateLM):
  """A causal model of mtjax, decoded with any of its methods.

  `pretrained`, `weights` and `dtype` are `name`, `weights` and `dtype` of `mtjax.load`; `method`
  and further settings are those of `mtjax.method`, as in "method=lookup,length=8", and only texts
  that are written depend on them. `max_length` is the largest number of tokens that are read at
  once, the model's positions unless it is set; `max_gen_toks` is the limit of tasks that set none,
  and `seed` that of sampled texts. `batch_size` is a number of rows, or "auto" for 8.

  lm-eval's command line always sets `device`, to "cuda:0" by default, and `max_batch_size`: both do
  nothing here. JAX takes the device that the environment variable JAX_PLATFORMS names.

  Raises ValueError for settings out of range, and for an any-subset model.
  """

  def __init__(
    self,
    pretrained: str,
    method: str = "ar",
    weights: str = "stored",
    dtype: str | None = None,
    max_length: int | None = None,
    max_gen_toks: int = 256,
    batch_size: int | str = _BATCH,
    seed: int = 0,
    device: str | None = None,
    max_batch_size: int | None = None,
    **settings: Any,
  ):
    super().__init__()
    self._method = named_method(method, **settings)
    self._batch = _BATCH if str(batch_size).startswith("auto") else int(batch_size)
    self._text = load(pretrained, weights=weights, dtype=dtype)
    check_causal(self._text.model, pretrained)
    positions = self._text.model.config.max_position
    self._max_length = positions if max_length is None else int(max_length)
    if self._batch < 1 or not 1 <= self._max_length <= positions:
      raise ValueError(
        f"batch_size must be at least 1, and max_length from 1 to the {positions} positions of the "
        f"model: got {batch_size} and {max_length}"
      )
    self._max_gen_toks, self._seed = int(max_gen_toks), int(seed)
    self.tokenizer = self._text.tokenizer

  @property
  def eot_token_id(self) -> int:
    return self.tokenizer.eos_id

  @property
  def prefix_token_id(self) -> int:
    return self.tokenizer.bos_id

  @property
  def max_length(self) -> int:
    return self._max_length

  @property
  def max_gen_toks(self) -> int:
    return self._max_gen_toks

  @property
  def batch_size(self) -> int:
    return self._batch

  @property
  def tokenizer_name(self) -> str:
    """A name that differs for tokenizers and chat templates: lm-eval keeps rendered requests."""
    identity = self.tokenizer.fingerprint() + chat_tokenizer(self.tokenizer).chat_template()
    return f"mtjax__{hashlib.sha256(identity.encode()).hexdigest()}"

  def tok_encode(
    self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
  ) -> list[int]:
    bare = add_special_tokens is False
    return (encode_bare if bare else encode_prompt)(self.tokenizer, string) if string else []

  def chat_template(self, chat_template: bool | str = False) -> str | None:
    if chat_template is False or chat_template is None:
      return None
    if chat_template not in (True, "default"):
      raise ValueError(f"there is no chat template {chat_template!r}: only the default one is read")
    return chat_tokenizer(self.tokenizer).chat_template()

  def apply_chat_template(
    self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
  ) -> str:
    render = render_conversation if add_generation_prompt else render_open_conversation
    return render(self.tokenizer, chat_history)

  def loglikelihood(
    self, requests: list[Instance], disable_tqdm: bool = False
  ) -> list[tuple[float, bool]]:
    pairs = [encode_pair(self.tokenizer, *request.args) for request in requests]
    return self._scored(pairs, [request.args for request in requests], disable_tqdm)

  def _loglikelihood_tokens(
    self, requests, disable_tqdm: bool = False, **kwargs: Any
  ) -> list[tuple[float, bool]]:
    pairs = [TokenPair(list(context), list(target)) for _, context, target in requests]
    return self._scored(pairs, [texts for texts, *_ in requests], disable_tqdm)

  def _scored(
    self, pairs: Sequence[TokenPair], names: Sequence[Any], disable_tqdm: bool
  ) -> list[tuple[float, bool]]:
    def keep(index: int, score: PairScore) -> None:
      if names[index] is not None:
        self.cache_hook.add_partial("loglikelihood", names[index], tuple(score))

    return [tuple(score) for score in self._pair_scores(pairs, keep, disable_tqdm)]

  def loglikelihood_rolling(
    self, requests: list[Instance], disable_tqdm: bool = False
  ) -> list[float]:
    pairs, owners = [], []
    for owner, request in enumerate(requests):
      tokens = self.tok_encode(*request.args)
      own = rolling_pairs(tokens, prefix=self.prefix_token_id, max_length=self.max_length)
      pairs += own
      owners += [owner] * len(own)
    totals = [0.0] * len(requests)
    scores = self._pair_scores(pairs, lambda index, score: None, disable_tqdm)
    for owner, score in zip(owners, scores, strict=True):
      totals[owner] += score.log_likelihood
    for request, total in zip(requests, totals, strict=True):
      self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
    return totals

  def _pair_scores(
    self, pairs: Sequence[TokenPair], keep: Callable[[int, PairScore], None], disable_tqdm: bool
  ) -> list[PairScore]:
    with tqdm(total=len(pairs), disable=disable_tqdm, desc="Scoring") as bar:

      def each(index: int, score: PairScore) -> None:
        keep(index, score)
        bar.update()

      return pair_scores(
        self._text.model,
        self._text.params,
        pairs,
        max_length=self.max_length,
        batch=self._batch,
        each=each,
      )

  def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
    wanted = [
      (context, WritingSettings.of(generation, max_tokens=self.max_gen_toks))
      for context, generation in (request.args for request in requests)
    ]
    with tqdm(total=len(wanted), disable=disable_tqdm, desc="Writing") as bar:

      def each(index: int, text: str) -> None:
        self.cache_hook.add_partial("generate_until", requests[index].args, text)
        bar.update()

      return write_until(
        self._text,
        wanted,
        method=self._method,
        max_length=self.max_length,
        batch=self._batch,
        seed=self._seed,
        each=each,
      )
