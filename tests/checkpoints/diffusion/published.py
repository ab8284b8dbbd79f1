"""config.json of published diffusion models, without the fields that say nothing of the network."""

LLADA_8B = dict(
  model_type="llada",
  activation_type="silu",
  alibi=False,
  attention_layer_norm=False,
  bias_for_layer_norm=False,
  block_group_size=1,
  block_type="llama",
  d_model=4096,
  embedding_size=126464,
  include_bias=False,
  include_qkv_bias=False,
  input_emb_norm=False,
  layer_norm_type="rms",
  layer_norm_with_affine=True,
  mask_token_id=126336,
  max_sequence_length=4096,
  mlp_hidden_size=12288,
  mlp_ratio=4,
  multi_query_attention=None,
  n_heads=32,
  n_kv_heads=32,
  n_layers=32,
  rms_norm_eps=1e-5,
  rope=True,
  rope_theta=500000.0,
  scale_logits=False,
  vocab_size=126464,
  weight_tying=False,
)
DREAM_7B = dict(
  model_type="Dream",
  hidden_act="silu",
  hidden_size=3584,
  intermediate_size=18944,
  mask_token_id=151666,
  max_position_embeddings=131072,
  max_window_layers=28,
  num_attention_heads=28,
  num_hidden_layers=28,
  num_key_value_heads=4,
  rms_norm_eps=1e-6,
  rope_scaling=None,
  rope_theta=1000000.0,
  sliding_window=None,
  tie_word_embeddings=False,
  use_sliding_window=False,
  vocab_size=152064,
)
SDAR_4B = dict(
  model_type="sdar",
  attention_bias=False,
  block_size=4,
  head_dim=128,
  hidden_act="silu",
  hidden_size=2560,
  intermediate_size=9728,
  mask_token_id=151669,
  max_position_embeddings=32768,
  max_window_layers=36,
  num_attention_heads=32,
  num_hidden_layers=36,
  num_key_value_heads=8,
  rms_norm_eps=1e-6,
  rope_scaling=None,
  rope_theta=1000000,
  sliding_window=None,
  tie_word_embeddings=False,
  use_sliding_window=False,
  vocab_size=151936,
)
FAST_DLLM_7B = dict(
  model_type="Fast_dLLM_Qwen",
  bd_size=32,
  hidden_act="silu",
  hidden_size=3584,
  intermediate_size=18944,
  max_position_embeddings=32768,
  max_window_layers=28,
  num_attention_heads=28,
  num_hidden_layers=28,
  num_key_value_heads=4,
  rms_norm_eps=1e-6,
  rope_scaling=None,
  rope_theta=1000000.0,
  tie_word_embeddings=False,
  use_sliding_window=False,
  vocab_size=152064,
)
BD3LM_OWT = dict(
  model_type="bd3lm",
  adaln=True,
  attn_backend="flex",
  block_size=4,
  causal=False,
  cond_dim=128,
  cross_attn=True,
  dropout=0.1,
  hidden_dim=768,
  model_length=1024,
  n_blocks=12,
  n_heads=12,
  time_conditioning=False,
  var_min=True,
  vocab_size=50258,
)
MDLM_OWT = dict(
  model_type="mdlm",
  cond_dim=128,
  dropout=0.1,
  hidden_dim=768,
  model_length=1024,
  n_blocks=12,
  n_heads=12,
  time_conditioning=False,
  vocab_size=50258,
)
ESOLM_OWT = dict(
  model_type="EsoLM",
  cond_dim=128,
  dropout=0.1,
  hidden_dim=768,
  hidden_size=768,
  mask_index=50257,
  model_length=1024,
  n_blocks=12,
  n_heads=12,
  vocab_size=50258,
)
# The sizes of Gemma 4 26B-A4B.
GEMMA_26B = dict(
  model_type="diffusion_gemma",
  canvas_length=256,
  text_config=dict(
    model_type="diffusion_gemma_text",
    head_dim=256,
    hidden_size=2816,
    intermediate_size=2112,
    moe_intermediate_size=704,
    num_attention_heads=16,
    num_experts=128,
    num_hidden_layers=30,
    num_key_value_heads=8,
    per_layer_config={
      str(index): dict(head_dim=512, num_key_value_heads=2) for index in range(5, 30, 6)
    },
    sliding_window=1024,
    top_k_experts=8,
    vocab_size=262144,
  ),
)


def _gemma_parameters(dim=2816, mlp=2112, experts=128, expert=704, heads=16):
  """Counts them by hand; 25.2 billion are published."""
  attention = 25 * (2 * heads * 256 * dim + 2 * 8 * 256 * dim + 2 * 256)
  attention += 5 * (2 * heads * 512 * dim + 2 * 512 * dim + 2 * 512)
  layer = 3 * mlp * dim + 3 * experts * expert * dim + 7 * dim + experts * (dim + 1) + dim + 2
  return 262144 * dim + attention + 30 * layer + 3 * mlp * dim + 2 * dim


PUBLISHED = {
  raw["model_type"]: raw
  for raw in (LLADA_8B, DREAM_7B, SDAR_4B, FAST_DLLM_7B, BD3LM_OWT, MDLM_OWT, ESOLM_OWT, GEMMA_26B)
}
# Of model cards (LLaDA, Dream), of the weights' index (SDAR: 8,822,848,512 bytes of bfloat16), and
# of the model that the weights began as (Fast-dLLM v2: Qwen2.5-7B).
PARAMETERS = {
  "llada": 8_015_581_184,
  "Dream": 7_615_616_512,
  "sdar": 4_411_424_256,
  "Fast_dLLM_Qwen": 7_615_616_512,
  "diffusion_gemma": _gemma_parameters(),
  **dict.fromkeys(
    ("bd3lm", "mdlm", "EsoLM"), 2 * 50258 * 768 + 50258 + 12 * (12 * 768**2 + 9 * 768) + 2 * 768
  ),
}
