"""The public sampler of LLaDA in PyTorch (`generate.py` of github.com/ML-GSAI/LLaDA)."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtjax.bench.systems import Run, SystemText

LLAMA = "llama"  # the folder's model with the mask as its last token (`exported.as_llama`)


def open_system(folder: str, threads: int, *, script: str, plan: Mapping[str, Any]) -> Run:
  """Opens the model and the authors' script.

  The network is that of transformers with a mask in which all entries see each other, as LLaDA's
  own class has it: float32, with PyTorch's fused attention. `plan`: `steps` and `block_length`.
  """
  import torch
  import transformers

  torch.set_num_threads(threads)
  model = transformers.LlamaForCausalLM.from_pretrained(
    Path(folder) / LLAMA, dtype=torch.float32, attn_implementation="sdpa"
  ).eval()
  generate = _load(script).generate
  mask_id = model.config.vocab_size - 1

  class MaskPredictor:
    """What the script calls: a model of whole canvases, without a chance for the mask."""

    device = model.device

    def __call__(self, x, attention_mask=None):
      del attention_mask  # every entry sees every other one
      size = x.shape[1]
      out = model(x, attention_mask=torch.zeros(len(x), 1, size, size), use_cache=False)
      out.logits[..., mask_id] = -torch.inf
      return out

  def run(prompts, job):
    ids = torch.tensor(prompts)
    out = generate(
      MaskPredictor(),
      ids,
      gen_length=job.tokens,
      temperature=job.temperature,
      mask_id=mask_id,
      **plan,
    )
    return SystemText(out[:, ids.shape[1] :].tolist(), plan["steps"] * len(prompts))

  return run


def _load(script: str):
  """Returns the module of a script. Raises FileNotFoundError if there is none."""
  spec = importlib.util.spec_from_file_location("published_llada_generate", script)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
