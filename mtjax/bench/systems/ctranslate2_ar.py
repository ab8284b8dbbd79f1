"""CTranslate2, the fastest CPU peer that pip installs as a wheel."""

import tempfile
from pathlib import Path

from mtjax.bench.systems import Run, SystemText


def open_system(folder: str, threads: int, *, variant: str) -> Run:
  """Converts and opens the model; `variant` is the compute type, float32 or int8."""
  import ctranslate2

  out = str(Path(tempfile.mkdtemp()) / "model")
  ctranslate2.converters.TransformersConverter(folder).convert(out, quantization=variant)
  generator = ctranslate2.Generator(
    out, device="cpu", compute_type=variant, inter_threads=1, intra_threads=threads
  )
  from tokenizers import Tokenizer

  tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))

  def run(prompts, job):
    job.check_greedy()
    results = generator.generate_batch(
      [[tokenizer.id_to_token(token) for token in prompt] for prompt in prompts],
      max_length=job.tokens,
      min_length=job.tokens,
      sampling_topk=1,
      include_prompt_in_result=False,
      end_token=[],
    )
    return SystemText([list(result.sequences_ids[0]) for result in results])

  return run
