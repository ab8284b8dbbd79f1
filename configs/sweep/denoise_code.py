r"""Programs by a masked model: length, steps, block length, temperature and order of positions.

python -m experiments.sweep --config=configs/sweep/denoise_code.py --results=runs/denoise_code \
  -- --data=HumanEval.jsonl.gz --limit=10

The questions of the study of diffusion models for code (2509.11252, sections 4 and 5), asked of a
masked model: pass@1 by running the programs, and the target's perplexity of the answers with their
entropy beside it. `random` decides positions in any order, `sampled_probability` the surest first
(the study's "low-confidence" remasking). Lengths beyond those of training show extrapolation.
--model=FOLDER is another masked model, --task=mbpp another task.

Any CPU: one to two minutes per run with 2 questions, of which most is compilation. Expected of the
bundled model: pass@1 of 0, because it is small. In a shorter sweep (16 tokens, 2 questions) the
surest first gave a perplexity of 26 at an entropy of 2.6, random order 160 at 3.2 (2026-11-29).
"""

from mtjax.cli.sweep.combinations import product

PROGRAM = "evaluate"


def sweep() -> list[dict[str, object]]:
  runs = product(
    {
      "length": [64, 128],
      "passes_per_token": [0.5, 1.0],
      "block_length": [32, 64],
      "order": ["sampled_probability", "random"],
      "temperature": [0.2, 0.8],
    }
  )
  return [dict(task="humaneval", methods=_method(**one), judge="target") for one in runs]


def _method(length, passes_per_token, **settings) -> str:
  fields = dict(length=length, steps=int(length * passes_per_token), **settings)
  return ":".join(["llada", *(f"{name}={value}" for name, value in fields.items())])
