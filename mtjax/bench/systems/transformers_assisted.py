"""transformers `generate` with an assistant model or prompt lookup, and without: `target`, `draft`.

Everything in float32. Forwards are counted by a hook on the target: the prompt's is one of them. A
streamer takes the time of the first tokens, which with drafts may be several.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtjax.bench.systems import Run, SystemText


def open_system(
  folder: str,
  threads: int,
  *,
  generate: Mapping[str, Any] | None = None,
  assistant: Mapping[str, Any] | None = None,
) -> Run:
  """Opens the models. `generate`: its other arguments; `assistant`: the draft model's settings."""
  import torch
  import transformers
  from transformers.generation.streamers import BaseStreamer

  torch.set_num_threads(threads)

  def load(name):
    model = transformers.AutoModelForCausalLM.from_pretrained(
      str(Path(folder) / name), dtype=torch.float32
    )
    # End tokens are those of the job, for the assistant too.
    model.generation_config.eos_token_id = None
    return model.eval()

  target, more = load("target"), dict(generate or {})
  if assistant is not None:
    draft = load("draft")
    draft.generation_config.update(**assistant)
    more["assistant_model"] = draft
  forwards = 0

  def count(*_):
    nonlocal forwards
    forwards += 1

  target.register_forward_hook(count)

  class FirstTokens(BaseStreamer):
    """The moment of the first tokens, and their number; what is put before them is the prompt."""

    puts, moment, tokens = 0, 0.0, 0

    def put(self, value):
      self.puts += 1
      if self.puts == 2:
        self.moment, self.tokens = time.perf_counter(), value.numel()

    def end(self):
      pass

  def run(prompts, job):
    nonlocal forwards
    begin, first, forwards = time.perf_counter(), FirstTokens(), 0
    if job.temperature:
      sampling = dict(do_sample=True, temperature=job.temperature, top_k=0, top_p=1.0)
      torch.manual_seed(job.seed)
    else:
      sampling = dict(do_sample=False)
    ids = torch.tensor(prompts)
    with torch.inference_mode():
      out = target.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=job.tokens,
        pad_token_id=0,
        eos_token_id=list(job.ends) or None,
        streamer=first,
        **sampling,
        **more,
      )
    tokens = out[:, ids.shape[1] :].tolist()
    until = first.moment - begin
    return SystemText(tokens, forwards * len(prompts), None, until, first.tokens)

  return run
