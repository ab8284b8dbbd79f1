r"""ResGen (2412.10208) on spoken digits: 20 blocks of 4 log-mel spectra with 4 codes each.

python -m experiments.recipes.resgen --config=configs/recipes/resgen_speech.py --data=DATA \
  --results=results/resgen_speech.json

On 2 CPU cores shared with other work, about 15 minutes (2026-11-29):
class accuracy 97 % in 4 passes, 95.5 % in 80 autoregressive ones.
Needs DATA/fsdd: recordings DIGIT_SPEAKER_INDEX.wav of 8 kHz, as files or in *.tar.gz.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.dataset = "speech"
  config.length = 20  # blocks: 0.64 seconds
  config.frames = 4  # spectra of a block, 8 ms apart
  config.shifts = 4  # copies of a recording, each a spectrum later
  config.width = 24
  config.depth = 4
  config.codes = 128
  config.fit_vectors = 40_000
  config.network = dict(components=32, dim=96, layers=3, heads=4, mlp_dim=256, min_scale=0.15)
  config.batch = 64
  config.train_steps = 1500
  config.learning_rate = 2e-3
  config.flattened_compute = 1.0
  config.flattened_temperatures = (1.0, 0.8)
  config.steps = (1, 2, 4, 8, 16)
  config.order_noise = 4.0
  config.temperature = 0.5
  # Others: (steps, order noise, temperature). With a noise of 1000 the order is at random.
  config.other_decodings = ((8, 0.0, 0.5), (8, 1000.0, 0.5), (8, 4.0, 1.0), (8, 4.0, 0.0))
  config.samples = 200
  config.judge_rows = 3600
  config.judge_epochs = 12
  config.seed = 0
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.update(length=4, shifts=1, width=4, depth=2, codes=4, fit_vectors=200, batch=4)
  config.network = dict(components=2, dim=8, layers=1, heads=2, mlp_dim=8, min_scale=0.1)
  config.update(
    train_steps=4,
    steps=(1, 2),
    other_decodings=((2, 0.0, 1.0),),
    flattened_temperatures=(1.0,),
    samples=10,
  )
  config.judge_epochs = 1
  return config
