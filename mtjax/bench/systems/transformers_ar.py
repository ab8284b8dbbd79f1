"""transformers `generate` on PyTorch's CPU back-end."""

from mtjax.bench.systems import Run, SystemText


def open_system(folder: str, threads: int, *, variant: str) -> Run:
  """Opens the model. `eager`, `bf16`: default; `static`: static cache; `compiled`: compiled too."""
  import torch
  import transformers

  torch.set_num_threads(threads)
  dtype = torch.bfloat16 if variant == "bf16" else torch.float32
  model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
  settings = {}
  if variant in ("static", "compiled"):
    settings["cache_implementation"] = "static"
  if variant == "compiled":
    model.forward = torch.compile(model.forward, mode="max-autotune-no-cudagraphs", dynamic=False)
  elif variant == "static":
    settings["disable_compile"] = True

  def run(prompts, job):
    job.check_greedy()
    ids = torch.tensor(prompts)
    with torch.inference_mode():
      out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=job.tokens,
        min_new_tokens=job.tokens,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        **settings,
      )
    return SystemText(out[:, ids.shape[1] :].tolist())

  return run
