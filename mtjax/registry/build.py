"""From a config of configs/decode to the arguments of `TextModel.generate`."""

from collections.abc import Mapping
from typing import Any

from mtjax.decode.method import Autoregressive, Method
from mtjax.models import Params
from mtjax.pretrained import DEMO_PROMPTS
from mtjax.registry.auto import make_planned, planned_config, wants_plan
from mtjax.registry.methods import check_method, get_drafter
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel


def run_settings(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings of `TextModel.generate` that all methods have, from configs/decode."""
  settings = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty")
  sampling = Sampling(**{name: config[name] for name in settings})
  return dict(
    sampling=sampling, max_tokens=config["max_tokens"], key=config["seed"], stop=config["stop"]
  )


def make_method(
  config: Mapping[str, Any], target: TextModel, *, batch: int = 1, tokens: int = 0
) -> tuple[Method, Params | None]:
  """Returns the method that a config of configs/decode names, and its parameters, for `generate`.

  batch: the largest number of rows, and tokens: of the longest row, prompt and new ones, which a
  plan is made for (`planned_config`). Raises ValueError for an unknown method, settings out of
  range, and a draft model whose vocabulary is not the target's.
  """
  name = config["method"]
  check_method(name)
  if name == "ar":
    return Autoregressive(), None
  from mtjax.decode.speculative import Speculative
  from mtjax.verify import get_verifier

  if "verifier" not in config:
    raise ValueError(
      f"the config of method {name!r} needs 'verifier': begin with --config={name}, which has one"
    )
  get_verifier(config["verifier"])
  if wants_plan(config):
    return make_planned(planned_config(config, target, None, tokens), target, batch)
  drafter, params = get_drafter(config["of"] if name == "auto" else name)(config, target)
  method = Speculative(drafter, config["verifier"])
  return _adaptive(config, target, method, params) if name == "auto" else (method, params)


def _adaptive(config, target, speculative, drafter_params):
  from mtjax.decode.adaptive import Adaptive
  from mtjax.decode.costs import measure_costs

  settings = dict(config["adaptive"])
  cost = settings.pop("cost")
  method = Adaptive(speculative, **settings)
  if not cost:
    prompt = target.tokenizer.encode(DEMO_PROMPTS[0])
    cost = measure_costs(
      target.model, target.params, method, drafter_params, prompt=prompt, mesh=target.mesh
    )
  return method, method.params(cost, drafter_params)
