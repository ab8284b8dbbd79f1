"""Methods of denoising as command lines spell them, NAME:setting=value:..., with their sampling."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.arguments import integer
from mtjax.registry.denoising.methods import DENOISERS, AnyDenoiser, get_row
from mtjax.registry.drafters import check_settings
from mtjax.registry.spelling import split_spelling

_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


@dataclasses.dataclass(frozen=True)
class SpelledDenoiser:
  """A method of denoising, its sampling, and the bundled model for it; "" where none is bundled."""

  name: str
  denoiser: AnyDenoiser
  sampling: Mapping[str, Any]
  model: str


def spelled_denoiser(
  spelling: str, *, length: int | None = None, temperature: float | None = None
) -> SpelledDenoiser:
  """Returns the method of "llada" or "llada:steps=16:transfer=threshold:threshold=0.8".

  Fields are those of the method's class (`mtjax.denoiser`), `temperature`, `top_k`, `top_p` and
  `min_p`, and, after a field that names a rule, those of the rule. `length` is the number of tokens
  where the spelling says none; a method with rules of a pass then decides as many tokens per pass
  as by default, unless the spelling says `steps`. `temperature` is that of methods whose spelling
  says none.

  Raises ValueError for an unknown method or setting, for settings out of range, and for a
  temperature beside a rule that has its own.
  """
  name, fields = split_spelling(spelling)
  row = get_row(name)
  method = row.denoiser
  settings, sampling = _apart(fields, method)
  if temperature is not None:
    sampling = dict(temperature=temperature) | sampling
  if method.own_temperature and "temperature" in sampling:
    rule = "gidd:temperature=0.5" if name == "gidd" else "accept_or_renoise:t_max=0.5"
    raise ValueError(
      f"the temperature of {name} is a setting of its rule: leave temperature out, and give for "
      f"example {name}:rule={rule}"
    )
  known = [field.name for field in dataclasses.fields(method)]
  check_settings(f"method of denoising, {name},", settings, known)
  length = settings.get("length", length)
  if length is not None:
    length = integer(length, "length")
    settings = method.settings_for(length) | settings
  made = dataclasses.replace(method, **settings)
  return SpelledDenoiser(spelling, made, dict(row.sampling) | sampling, row.model)


def model_of(methods: Sequence[SpelledDenoiser]) -> str:
  """Returns the bundled model that all the methods run on.

  Raises ValueError, with the methods, where there is none, or not one for all of them.
  """
  models = {one.name: one.model for one in methods}
  for one in methods:
    if not one.model:
      raise ValueError(f"no model is bundled for {one.name}: give {one.denoiser.needs} as --model")
  if len(set(models.values())) > 1:
    said = ", ".join(f"{name} on {model}" for name, model in models.items())
    raise ValueError(f"these methods run on several models ({said}): give --model for all of them")
  return next(iter(models.values()))


def filling_names() -> list[str]:
  """Returns the names of the methods that fill blanks."""
  return [name for name, row in DENOISERS.items() if row.denoiser.fills_blanks]


def _apart(fields: Mapping[str, Any], method: AnyDenoiser) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the settings of the method, where rules have theirs, and those of sampling."""
  settings: dict[str, Any] = {}
  sampling: dict[str, Any] = {}
  known = {field.name for field in dataclasses.fields(method)}
  rule = ""
  for field, value in fields.items():
    is_of_rule = field == "temperature" and rule and method.own_temperature
    if field in _SAMPLING and not is_of_rule:
      sampling[field] = value
    elif field in known or not rule:
      settings[field] = value
      rule = field if field in method.spelled else ""
    else:
      settings[rule] += f":{field}={value}"
  return settings, sampling
