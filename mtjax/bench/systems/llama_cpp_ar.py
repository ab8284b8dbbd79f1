"""llama.cpp, driven token by token through its C API; the model is written as GGUF first."""

import json
import tempfile
from pathlib import Path

import numpy as np

from mtjax.bench.systems import Run, SystemText
from mtjax.bench.systems.exported import GGUF


def open_system(folder: str, threads: int, *, variant: str) -> Run:
  """Opens a Llama model. `variant`: the type of its matrices; "file" is the model's own file."""
  import llama_cpp as api

  path = gguf_file(folder, folder, variant)
  api.llama_backend_init()
  model = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
  if not model:
    raise RuntimeError("llama.cpp refused the model")
  vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))

  def context(prompts, tokens):
    settings = api.llama_context_default_params()
    rows, length = len(prompts), len(prompts[0])
    settings.n_ctx = rows * (length + tokens)
    settings.n_batch = settings.n_ubatch = max(512, rows * length)
    settings.n_seq_max = rows
    settings.n_threads = settings.n_threads_batch = threads
    return api.llama_init_from_model(model, settings)

  held: dict[tuple, tuple] = {}

  def run(prompts, job):
    job.check_greedy()
    tokens = job.tokens
    shape = (len(prompts), len(prompts[0]), tokens)
    if shape not in held:
      batch = api.llama_batch_init(shape[0] * shape[1], 0, 1)
      held[shape] = context(prompts, tokens), batch
    inside, batch = held[shape]
    api.llama_memory_clear(api.llama_get_memory(inside), True)
    new = _decode(api, inside, batch, prompts, 0, vocab)
    out = [[token] for token in new]
    for position in range(shape[1], shape[1] + tokens - 1):
      new = _decode(api, inside, batch, [[token] for token in new], position, vocab)
      for row, token in zip(out, new, strict=True):
        row.append(token)
    return SystemText(out)

  return run


def _decode(api, inside, batch, rows, position, vocab) -> list[int]:
  """Returns the argmax tokens after rows, all of one length, that begin at `position`."""
  length = len(rows[0])
  batch.n_tokens = len(rows) * length
  for index, row in enumerate(rows):
    for offset, token in enumerate(row):
      at = index * length + offset
      batch.token[at], batch.pos[at] = token, position + offset
      batch.n_seq_id[at], batch.seq_id[at][0] = 1, index
      batch.logits[at] = offset == length - 1
  if api.llama_decode(inside, batch):
    raise RuntimeError("llama.cpp could not decode")
  ends = range(length - 1, batch.n_tokens, length)
  pointers = (api.llama_get_logits_ith(inside, end) for end in ends)
  return [int(np.ctypeslib.as_array(pointer, (vocab,)).argmax()) for pointer in pointers]


def gguf_file(folder: str, model: str, weights: str) -> str:
  """Returns the path of the model's own GGUF file in `folder`, or of one written for `weights`.

  model: the model's folder in the transformers format, of which the file is written with matrices
  of the type `weights`: f32, f16, bf16 or q8_0. "file" stands for the model's own. Raises
  ValueError where the model does not come from a GGUF file.
  """
  if weights == "file":
    path = Path(folder) / GGUF
    if not path.exists():
      raise ValueError("the model does not come from a GGUF file")
    return str(path)
  path = str(Path(tempfile.mkdtemp()) / "model.gguf")
  write_gguf(model, path, weights)
  return path


def write_gguf(folder: str, path: str, variant: str) -> None:
  """Writes a Llama folder as GGUF without a vocabulary: tokens go in and out as ids.

  Raises ValueError for other families.
  """
  import gguf
  from safetensors import safe_open

  config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
  if config["model_type"] != "llama":
    raise ValueError(f"only Llama models can be written as GGUF, not {config['model_type']!r}")
  heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
  rope = config.get("rope_parameters") or config
  writer = gguf.GGUFWriter(path, "llama")
  writer.add_context_length(config["max_position_embeddings"])
  writer.add_embedding_length(config["hidden_size"])
  writer.add_block_count(config["num_hidden_layers"])
  writer.add_feed_forward_length(config["intermediate_size"])
  writer.add_head_count(heads)
  writer.add_head_count_kv(kv_heads)
  writer.add_key_length(config["head_dim"])
  writer.add_value_length(config["head_dim"])
  writer.add_rope_dimension_count(config["head_dim"])
  writer.add_rope_freq_base(rope["rope_theta"])
  writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
  writer.add_vocab_size(config["vocab_size"])
  writer.add_tokenizer_model("none")
  stored = getattr(gguf.GGMLQuantizationType, variant.upper())
  names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
  with safe_open(Path(folder) / "model.safetensors", framework="pt") as file:
    for name in file.keys():
      tensor = file.get_tensor(name).float().numpy()
      if name.endswith(("q_proj.weight", "k_proj.weight")):
        tensor = _interleave(tensor, heads if "q_proj" in name else kv_heads)
      kind = stored if tensor.ndim > 1 else gguf.GGMLQuantizationType.F32
      to = names.get_name(name, try_suffixes=(".weight",))
      if to is None:
        raise ValueError(f"GGUF has no name for {name}")
      writer.add_tensor(to, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def _interleave(weight, heads):
  """llama.cpp pairs neighbouring dimensions in its rotary embedding, transformers halves."""
  rows, columns = weight.shape
  halves = weight.reshape(heads, 2, rows // heads // 2, columns)
  return halves.swapaxes(1, 2).reshape(rows, columns)
