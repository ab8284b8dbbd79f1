"""Every field of a training config, with its meaning. Config files change only what differs."""

from ml_collections import ConfigDict, FieldReference


def defaults() -> ConfigDict:
  """Returns the config of a small transformer; `data.sources` is empty and must be set."""
  return ConfigDict(
    dict(
      model=dict(  # fields of mtjax.models.TransformerConfig; layers is their number
        kind="transformer",  # or "xlnet" or "diffusion_gemma": `xlnet_model`, `canvas_model`
        vocab_size=4096,
        dim=128,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=32,
        mlp_dim=384,
        max_position=1024,
        rope_theta=10_000.0,  # base of the rotary embedding's wavelengths
        dtype="float32",  # type of activations; parameters are always float32
        attention="best",  # or an implementation by name: docs/frontier_attention.md
        remat="none",  # "layer": recompute activations in the backward pass
        # Numbers of layers, as (2, 4, 6), after which the model may be left: the objective "s2d"
        # trains all of them (mtjax/train/losses/s2d.py). (): all layers only.
        exits=(),
        # What logits predict, or "any_subset" or "masked": it must fit `objective`.
        predicts="next_token",
        # Of masked models: a token is predicted at its own entry, or "shifted": at the one before;
        alignment="aligned",
        block_length=0,  # entries see their own block of so many and all earlier ones; 0: all.
        extra_embeddings=0,  # number of learned ids after the vocabulary; any-subset models have 2:
        extra_names=(),  # ("query", "sink"), and diffusion models ("mask",)
        # "added", "adaptive_norm": an any-subset model of a single stream, whose entries are told
        # which position to predict (mtjax/anysubset/single_stream.py). "none": two streams.
        target_conditioning="none",
        # "set_diffusion": an any-subset model whose context is causal (objective "set_diffusion");
        # "eso": one whose masks also see the masks before them (objective "eso").
        any_subset_rows="two_stream",
      ),
      init="",  # initial weights: a bundled model, a folder or an id; "": random ones
      # LoRA (mtjax/models/lora.py): adapters are trained, and all else stays as `init` has it.
      lora=dict(
        rank=0,  # of the factors A and B; 0: no adapters, all parameters are trained
        alpha=32.0,  # W + (alpha / rank) A B
        targets=("attention/.*", "mlp/.*"),  # patterns of the linear maps that are adapted
        trained=(),  # patterns of parameters that are trained whole, as ("extra/table",)
        frozen="float32",  # type in which the frozen weights are kept, or "bfloat16"
      ),
      # By name: mtjax/train/losses/registry.py has them. The settings of an objective, where it has
      # some, are a group of its name: any_subset=objective_settings("any_subset", queries=8).
      objective="next_token",
      optimizer=dict(
        name="muon",  # "adamw", or "muon" for the blocks' matrices and adamw for the rest
        learning_rate=5e-3,  # for adamw
        muon_learning_rate=0.02,
        weight_decay=0.01,
        b1=0.9,  # for adamw: decay of the mean of gradients,
        b2=0.95,  # and of the mean of their squares
        clip=1.0,  # largest global norm of the gradient
      ),
      data=dict(
        sources=(),  # texts and weights, see mtjax.data.sources.Source
        tokenizer="bundled",  # "bytes", "bundled", a tokenizer.json or a model's folder
        cache_dir="",  # folder of tokenised text; "": ~/.cache/mtjax/tokens
        eval_sources=(),  # "name=source", as "books=file:valid/*.txt.gz", scored in bits per byte
        eval_bytes=50_000,  # number of bytes scored per source, from its start
      ),
      batch=8,  # number of rows per update
      length=256,  # number of tokens per row
      accumulate=1,  # number of parts that a batch is computed in, one after the other
      steps=1000,
      warmup=50,  # number of steps of linear warm-up
      decay=300,  # number of last steps, with linear decay to 0; until then a run may be extended
      ema=0.0,  # decay of an average of the parameters; 0: none
      seed=0,
      # Numbers of devices, "data:2,model:2" or (2, 2): rows of a batch, and weights, are split.
      mesh=FieldReference((1, 1), field_type=object),
      log_every=20,
      eval_every=0,  # steps between evaluations in bits per byte; 0: at the end only
      save_every=200,
      keep=2,  # number of checkpoints that are kept
      tensorboard=False,
    )
  )


def tiny() -> ConfigDict:
  """Returns the config of a smallest run, on a text that comes with the package."""
  config = defaults()
  config.model.update(
    vocab_size=258, dim=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=32, max_position=64
  )
  config.data.update(sources=("builtin:tinyshakespeare",), tokenizer="bytes")
  config.update(
    batch=4, length=16, steps=40, warmup=4, decay=10, ema=0.9, log_every=1, save_every=5
  )
  return config


NAMED = {"tiny": tiny}


def named(name: str) -> ConfigDict:
  """Returns the config of --config=NAME. Raises ValueError for a name that is not in NAMED."""
  if name not in NAMED:
    raise ValueError(f"training config {name!r} is not one of: {', '.join(NAMED)}")
  return NAMED[name]()


def xlnet_model() -> ConfigDict:
  """Returns `config.model` of an XLNet in the sizes of xlnet-base-cased: fields of XLNetConfig."""
  return ConfigDict(
    dict(
      kind="xlnet",
      vocab_size=32000,
      dim=768,
      layers=12,
      heads=12,
      head_dim=64,
      mlp_dim=3072,
      activation="gelu",
      norm_eps=1e-12,
      max_position=512,  # only limits `length`: relative positions have no table
      dtype="float32",
      remat="none",
    )
  )


def canvas_model() -> ConfigDict:
  """Returns `config.model` of a small DiffusionGemma.

  Its fields are those of DiffusionGemmaConfig and of `mtjax.models.canvas_layers`.
  """
  return ConfigDict(
    dict(
      kind="diffusion_gemma",
      vocab_size=4096,
      dim=128,
      layers=4,
      heads=4,
      kv_heads=2,
      head_dim=32,
      mlp_dim=256,
      experts=4,
      top_experts=2,
      expert_dim=64,
      canvas_length=32,
      window=128,  # number of positions that most layers see before an entry or its canvas
      full_every=6,  # every layer of this number, and the last one, sees all of the text
      theta=10_000.0,  # base of the rotary wavelengths, of layers with a window
      full_theta=1_000_000.0,  # and of the others
      full_rotary_share=0.25,  # share of rotary dimensions that rotate in the others
      activation="gelu_tanh",
      logit_soft_cap=30.0,
      norm_eps=1e-6,
      max_position=1024,
      tied=True,
      dtype="float32",
    )
  )
