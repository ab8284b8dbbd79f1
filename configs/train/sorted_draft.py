r"""The bundled draft, fine-tuned so that it may be left after one of its two layers.

python -m experiments.train --config=configs/train/sorted_draft.py --workdir=runs/sorted \
  --config.data.sources="('file:books/train_children/*.txt.gz#header=-------;weight=0.45', \
  'file:pycode/stdlib_train.jsonl.gz#weight=0.35', 'file:gsm8k/train.jsonl.gz#weight=0.2;\
text_key=Question: {question}\nAnswer: {answer}')"

python -m experiments.export --workdir=runs/sorted --output=mtjax/assets/models/sorted \
  --dtype=bfloat16 --notokenizer

1.84 M tokens seen beside the draft's own 3.69 M. 9 min of one CPU core (3,600 tokens/s of its time;
the run shared it with much else). Expected: loss 3.86 after one layer, 3.57 after two (mean of the
last 200 steps). Bits per byte on texts it has not seen, 60 kB of each (2026-11-25, by
experiments/evaluate.py, whose header has the command), in brackets those of the draft:

  after one layer   2.200 (2.395) on prose, 2.325 (2.853) on HumanEval, 1.699 (2.203) on GSM8K
  after two         2.200 (2.166) on prose, 2.183 (2.211) on HumanEval, 1.557 (1.600) on GSM8K
"""

from ml_collections import ConfigDict

from configs.train import bundled_draft


def get_config() -> ConfigDict:
  config = bundled_draft.get_config()
  config.init = "draft"
  config.model.exits = (1, 2)
  # Half of what the draft was trained with, and most of the run at less.
  config.optimizer.update(learning_rate=2.5e-3, muon_learning_rate=0.01)
  config.update(steps=900, warmup=20, decay=600, seed=1)
  return config


def tiny() -> ConfigDict:
  config = bundled_draft.tiny()
  config.model.update(layers=2, exits=(1, 2))
  return config
