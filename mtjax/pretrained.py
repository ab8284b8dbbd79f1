"""Models and weight formats by name, and prompts that show what the bundled models can do."""

from importlib import resources
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from mtjax.models import Params
from mtjax.models.quantize import pack, to_int8
from mtjax.text import TextModel

BUNDLED = ("target", "draft", "sorted", "anysubset")
WEIGHTS = ("stored", "float32", "int8")

# Prose, code and arithmetic, as the bundled models were trained on; none of the prompts is in the
# training text. Each has 33 to 48 tokens, so that all need the same compiled program.
DEMO_PROMPTS = (
  "It had rained all night, and my brother and I had not slept for fear of the wind. The old clock "
  "struck nine, and the children ran down to the garden, where",
  "def write_lines(path, lines):\n    with open(path, 'w') as file:\n"
  '        file.writelines(lines)\n\ndef read_lines(path):\n    """Return the lines of a file.',
  "Question: Anna has 3 boxes with 4 apples in each box. She eats 2 apples. "
  "She gives 5 apples to her brother. How many apples are left?\nAnswer:",
)


def load_pretrained(name: str, *, dtype: Any = None, mesh: Mesh | None = None) -> TextModel:
  """Loads a bundled model (`BUNDLED`), a local folder, or a Hugging Face id.

  The folder holds config.json, safetensors and the tokenizer's files; `dtype` and `mesh` are those
  of `mtjax.checkpoints.load`. Raises ValueError or FileNotFoundError that says what is missing.
  """
  if "/" not in str(name) and name not in BUNDLED and not Path(name).expanduser().is_dir():
    raise FileNotFoundError(
      f"there is no model {name!r}; it must be a bundled model ({', '.join(BUNDLED)}), a folder "
      "or a Hugging Face id (owner/name)"
    )
  # Imported here: a program that only decodes its own parameters needs neither.
  from mtjax import checkpoints
  from mtjax.data.tokenizers import load_tokenizer

  path = model_path(name)
  model, params = checkpoints.load(path, dtype=dtype, mesh=mesh)
  return TextModel(model, params, load_tokenizer(path), str(name))


def model_path(name: str) -> str:
  """Returns the folder of a bundled model; any other name is returned as it is."""
  return str(resources.files("mtjax") / "assets" / "models" / name) if name in BUNDLED else name


def weights_for_decoding(params: Params, weights: str) -> Params:
  """Returns parameters in one of the formats of WEIGHTS, laid out for this machine.

  "stored": the same model, in the narrowest format that holds it exactly. "float32": the same
  model, 32 bits per weight, as other systems read it. "int8": weight-only int8, which is another
  target model (see `mtjax.models.quantize`). Raises ValueError for another name.
  """
  if weights not in WEIGHTS:
    raise ValueError(f"weights {weights!r} is not one of: {', '.join(WEIGHTS)}")
  if weights == "float32":
    return pack_if_useful(params, narrowest=jnp.float32)
  return pack_if_useful(to_int8(params) if weights == "int8" else params)


def pack_if_useful(params: Params, *, narrowest: Any = jnp.bfloat16) -> Params:
  """Returns packed parameters on huge pages if the native CPU product works here.

  Otherwise the parameters are returned as they are.
  """
  from mtjax.native.matmul import support
  from mtjax.native.memory import on_huge_pages

  return on_huge_pages(pack(params, narrowest=narrowest)) if support() is None else params
