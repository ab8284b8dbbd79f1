"""A tiny random DiffusionGemma of transformers."""

VOCAB, CANVAS, WINDOW = 50, 8, 6


def random_gemma(conditioning=1.0):
  """Returns the model of transformers, whose weights are far from those of initialisation.

  `conditioning` scales what the last pass says to the next one. At 1 such random weights make the
  difference of two roundings several times larger in every pass.
  """
  import torch
  import transformers
  from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

  torch.manual_seed(0)
  torch.set_num_threads(1)
  text = transformers.DiffusionGemmaTextConfig(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    global_head_dim=8,
    num_global_key_value_heads=1,
    max_position_embeddings=128,
    sliding_window=WINDOW,
    layer_types=["sliding_attention", "full_attention", "full_attention"],
    num_experts=4,
    top_k_experts=2,
    moe_intermediate_size=12,
    attn_implementation="eager",
  )
  vision = Gemma4VisionConfig(
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=4,
    position_embedding_size=16,
  )
  config = transformers.DiffusionGemmaConfig(
    text_config=text, vision_config=vision, canvas_length=CANVAS, attn_implementation="eager"
  )
  model = transformers.DiffusionGemmaForBlockDiffusion(config).eval()
  with torch.no_grad():
    scalars = {name: x for name, x in model.named_buffers() if name.endswith("layer_scalar")}
    for parameter in {id(x): x for x in [*model.parameters(), *scalars.values()]}.values():
      noise = torch.randn_like(parameter)
      parameter.copy_(0.3 * noise if parameter.ndim > 1 else parameter + 0.2 * noise)
    model.model.decoder.self_conditioning.down_proj.weight.mul_(conditioning)
  return model
