r"""The bundled draft, fine-tuned so that it may be left after one of its two layers.

python -m experiments.train --config=configs/train/sorted_draft.py --workdir=runs/sorted \
  --config.data.sources="('file:written.jsonl',)"

python -m experiments.export --workdir=runs/sorted --output=mtjax/assets/models/sorted \
  --dtype=bfloat16 --notokenizer

written.jsonl is what the target wrote for the draft (distilled_draft.py). 1.84 M tokens; 6 min of
one CPU core (4,700 tokens/s). Expected: loss 2.91 after one layer, 2.64 after two (mean of the last
200 steps). Bits per byte on texts it has not seen, 60 kB of each (2026-11-25, by
mtjax/evaluate/perplexity.py), in brackets those of the draft:

  after one layer   2.403 (2.703) on prose, 2.350 (3.035) on HumanEval, 1.872 (2.531) on GSM8K
  after two         2.398 (2.312) on prose, 2.200 (2.191) on HumanEval, 1.694 (1.667) on GSM8K
"""

from ml_collections import ConfigDict

from configs.train import bundled_draft


def get_config() -> ConfigDict:
  config = bundled_draft.get_config()
  config.update(init="draft", objective="s2d")
  config.model.exits = (1, 2)
  # Half of the learning rate that the draft was trained with, and a long decay.
  config.optimizer.update(learning_rate=2.5e-3, muon_learning_rate=0.01)
  config.update(steps=900, warmup=20, decay=600, seed=1)
  return config


def tiny() -> ConfigDict:
  config = bundled_draft.tiny()
  config.objective = "s2d"
  config.model.update(layers=2, exits=(1, 2))
  return config
