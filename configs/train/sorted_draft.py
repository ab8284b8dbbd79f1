r"""The bundled draft, fine-tuned so that it may be left after one of its two layers.

python -m experiments.train --config=configs/train/sorted_draft.py --workdir=runs/sorted \
  --config.data.sources="('file:books/train_children/*.txt.gz#header=-------;weight=0.45', \
  'file:pycode/stdlib_train.jsonl.gz#weight=0.35', 'file:gsm8k/train.jsonl.gz#weight=0.2;\
text_key=Question: {question}\nAnswer: {answer}')"

One CPU core. Expected: FILL
"""

from ml_collections import ConfigDict

from configs.train import bundled_draft


def get_config() -> ConfigDict:
  config = bundled_draft.get_config()
  config.init = "draft"
  config.model.exits = (1, 2)
  # Half of what the draft was trained with, and most of the run at less.
  config.optimizer.update(learning_rate=2.5e-3, muon_learning_rate=0.01)
  config.update(steps=1400, warmup=20, decay=800, seed=1)
  return config


def tiny() -> ConfigDict:
  config = bundled_draft.tiny()
  config.model.update(layers=2, exits=(1, 2))
  return config
