"""Methods of denoising that answer the questions of a task: canvases of masks become answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mtjax.evaluate.answers.methods import REFERENCE, Written, cut
from mtjax.registry.denoising.denoiser import Denoiser
from mtjax.registry.denoising.methods import DENOISERS, get_row
from mtjax.registry.drafters import check_settings
from mtjax.registry.spelling import split_spelling
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.types import Exactness

_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
_RULES = ("order", "transfer", "revise", "cache", "guidance")


@dataclasses.dataclass(frozen=True)
class DenoisingMethod:
  """A method of denoising with its sampling. Its canvas has a length of its own.

  A text that ends before its canvas does is cut at the end token or at a stop string; the passes
  were made for the whole canvas. A setting of `sampling` that is left out is that of the method.
  """

  denoiser: Denoiser
  sampling: Mapping[str, Any]
  same_text = False

  @property
  def exactness(self) -> Exactness:
    return self.denoiser.exactness

  def length(self, max_tokens: int) -> int:
    """Returns the number of tokens of an answer: those of the canvas."""
    del max_tokens
    return self.denoiser.length

  def write(
    self,
    model: TextModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Sequence[str],
    max_tokens: Sequence[int],
    temperature: float,
    key: jax.Array,
  ) -> tuple[list[Written], float]:
    """Returns what the method writes, and the seconds that it took, without compilation.

    The sampling is the method's own: `temperature` and `max_tokens` are of plain decoding.
    """
    del temperature, max_tokens
    completions, run = model.denoise(
      prompts, method=self.denoiser, sampling=Sampling(**dict(self.sampling)), key=key
    )
    written = []
    for one, decided, passes in zip(completions, run.decided_at, run.passes.tolist(), strict=True):
      text, finish = cut(one.text, stop, one.finish)
      steps = [decided.count(number) for number in range(1, passes + 1)]
      forwards = passes * self.denoiser.guiding.forwards
      written.append(Written(text, one.tokens, finish, steps, forwards))
    return written, run.counters["seconds"]


def denoising_method(
  name: str, *, max_tokens: int | None = None, temperature: float | None = None
) -> DenoisingMethod:
  """Returns the method of "llada" or "llada:steps=16:transfer=threshold:threshold=0.8".

  Fields are those of `Denoiser`, `temperature`, `top_k`, `top_p` and `min_p`, and, after a rule,
  those of the rule. `max_tokens` is the length of the canvas where the name says none; the method
  then has as many tokens per pass as by default, unless the name says `steps`. `temperature` is
  that of methods whose name says none.

  Raises ValueError for an unknown method, for one without rules of a pass, and as `Denoiser` does.
  """
  method, fields = split_spelling(name)
  row = get_row(method)
  plan = row.denoiser
  if not isinstance(plan, Denoiser):
    able = [name for name, one in DENOISERS.items() if isinstance(one.denoiser, Denoiser)]
    raise ValueError(f"{method!r} answers no tasks yet; these methods do: {', '.join(able)}")
  settings, sampling = _sorted(fields)
  if temperature is not None:
    sampling = dict(temperature=temperature) | sampling
  if max_tokens is not None:
    settings.setdefault("length", max_tokens)
  if "length" in settings and "steps" not in settings:
    settings["steps"] = max(settings["length"] * plan.steps // plan.length, 1)
  known = [field.name for field in dataclasses.fields(plan)]
  check_settings(f"method of denoising, {method},", settings, known)
  made = dataclasses.replace(plan, **settings)
  return DenoisingMethod(made, dict(row.sampling) | sampling)


def denoise_only(names: Sequence[str]) -> bool:
  """Returns whether the methods denoise canvases; False: they decode, and `ar` is one of them.

  Raises ValueError for a mixture, as a model is either causal or masked, and for decoding without
  `ar`.
  """
  others = [name for name in names if name.partition(":")[0] not in DENOISERS]
  if not others:
    return True
  shown = ",".join(names)
  if len(others) < len(names):
    raise ValueError(
      f"--methods={shown}: {others[0]} decodes with a causal model, and others denoise canvases "
      "with a masked one: give one kind at a time"
    )
  if REFERENCE not in names:
    raise ValueError(
      f"--methods={shown} lacks {REFERENCE}, whose text the others are compared with: give "
      f"--methods={REFERENCE},{shown}"
    )
  return False


def _sorted(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the settings of the denoiser, where rules have theirs, and those of sampling."""
  settings: dict[str, Any] = {}
  sampling: dict[str, Any] = {}
  known = {field.name for field in dataclasses.fields(Denoiser)}
  rule = ""
  for field, value in fields.items():
    if field in _SAMPLING:
      sampling[field] = value
    elif field in known or not rule:
      settings[field] = value
      rule = field if field in _RULES else ""
    else:
      settings[rule] += f":{field}={value}"
  return settings, sampling
