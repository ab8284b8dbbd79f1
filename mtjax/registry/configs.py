"""The settings of every method of decoding, with their defaults; configs/decode returns them."""

from ml_collections import ConfigDict

from mtjax.registry.auto import adaptive_settings, names_of, plan_settings
from mtjax.registry.candidates import PLANNABLE
from mtjax.registry.constraints import no_constraint
from mtjax.registry.methods import METHODS, check_method, drafter_settings


def shared() -> ConfigDict:
  """Returns the settings that every method has, those of plain decoding."""
  return ConfigDict(
    dict(
      method="ar",
      # "target", "smollm2", a folder, a GGUF file, or a Hugging Face id (owner/name[@revision]).
      model="target",
      dtype="",  # dtype of weights and activations; "": weights as stored, activations float32
      weights="stored",  # "stored", or "int8" (another, smaller target)
      mesh="",  # devices, such as "data:2,model:4" (docs/guides/mesh.md); "": one
      prompt_format="text",  # or "chat": a prompt is a user's turn in the model's chat template
      max_tokens=128,
      temperature=0.0,
      top_k=0,
      top_p=1.0,
      min_p=0.0,
      repetition_penalty=1.0,
      presence_penalty=0.0,
      stop=(),  # texts that end a row, e.g. ("\n\n",)
      seed=0,
      constraint=no_constraint(),
      every=4,  # number of rounds between two pieces of streamed text
    )
  )


def decode_config(name: str, *, of: str = "lookup") -> ConfigDict:
  """Returns the settings of a method by name; `of` is the drafter that `auto` uses.

  Several drafters, as "lookup,suffix,draft" or "all", compete for a plan of this machine.
  `config.drafter` has every setting of the drafter. Raises ValueError, with the known names, for an
  unknown method or drafter.
  """
  check_method(name)
  config = shared()
  config.method = name
  if name == "ar":
    return config
  row = METHODS[name]
  config.update(verifier=row.verifier, draft_model=row.draft_model)
  if name == "auto" and len(names_of(of)) > 1:
    config.of, config.plan = of, plan_settings()
    return config
  if name in PLANNABLE:
    # tree="auto": sizes, lengths and trees of this drafter as they pay on this machine.
    config.tree, config.plan = "", plan_settings()
  if name == "auto":
    config.of = of
    config.drafter = drafter_settings(of)
    config.adaptive = adaptive_settings()
    return config
  config.drafter = drafter_settings(name)
  return config
