// The table behind config/presets.hpp: ModelOpt's 39 named configurations as element, place and algorithm each.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "mixbit/config/quantizer_attribute_config.hpp"

namespace mixbit::detail::presets {

/// What a preset turns a quantizer into.
enum class preset_element : std::uint8_t {
  off,           ///< no entry
  int8,          ///< one amax a tensor
  int8_channel,  ///< one amax a row of the weight
  int4_b128,     ///< blocks of 128 along the last axis, calibrated
  fp8,
  fp8_channel,
  fp8_token,   ///< one amax a row, found on every call
  fp8_2d,      ///< square blocks of 128
  fp8_affine,  ///< with a calibrated bias along heads' width and batch
  mxfp4, mxfp6, mxfp8, mxint8,
  nvfp4,            ///< blocks of 16 with E4M3 scales, found on every call
  nvfp4_b32,        ///< the same in blocks of 32
  nvfp4_static,     ///< block scales calibrated once
  nvfp4_four_six,   ///< the same, each block on 4 or on 6
  nvfp4_affine, nvfp4_rotated,
  rotate_only,  ///< not cast, but rotated: queries that meet rotated keys
  int4_then_fp8
};

/// Which rules follow the entries: the common list, that and input quantizers off before it, or more off after it.
enum class preset_tail : std::uint8_t { none, common, weight_only, mamba_aggressive, mamba_conservative };

/// One preset. `places` are name prefixes, separated by spaces: everything is turned off first, then each place gets a
/// weight and an input entry. A place that is a whole quantizer pattern (KV cache) gets the two elements one after the
/// other, and neither it nor an empty place turns anything off first: such presets are added to another one.
struct preset_row {
  std::string_view name;
  std::string_view places;
  preset_element weight;
  preset_element input;
  preset_tail tail;
  std::string_view algorithm;  ///< "" absent, "null", "max", or "max {}" for an object, "awq_lite alpha_step=0.1"
};

inline constexpr std::string_view all_layers = "*";
inline constexpr std::string_view mlp_layers = "*mlp* *block_sparse_moe*";
inline constexpr std::string_view expert_layers = "*block_sparse_moe* *.experts.*";
inline constexpr std::string_view mlp_and_experts =
    "*mlp* *.mixer.up_proj. *.mixer.down_proj. *block_sparse_moe* *.experts.*";
inline constexpr std::string_view o_mlp_layers =
    "*o_proj* *mlp* *.mixer.up_proj. *.mixer.down_proj. *block_sparse_moe*";

using enum preset_element;
using enum preset_tail;

inline constexpr preset_row preset_rows[] = {
    {"FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", all_layers, fp8_2d, off, weight_only, "max"},
    {"FP8_AFFINE_KV_CFG", "*[kv]_bmm_quantizer", fp8, fp8_affine, none, ""},
    {"FP8_DEFAULT_CFG", all_layers, fp8, fp8, common, "max"},
    {"FP8_KV_CFG", "*[kv]_bmm_quantizer", fp8, off, none, ""},
    {"FP8_PER_CHANNEL_PER_TOKEN_CFG", all_layers, fp8_channel, fp8_token, common, "max"},
    {"INT4_AWQ_CFG", all_layers, int4_b128, off, weight_only, "awq_lite alpha_step=0.1"},
    {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", all_layers, int4_b128, off, weight_only, "max"},
    {"INT8_DEFAULT_CFG", all_layers, int8_channel, int8, common, "max"},
    {"INT8_SMOOTHQUANT_CFG", all_layers, int8_channel, int8, common, "smoothquant"},
    {"INT8_WEIGHT_ONLY_CFG", all_layers, int8_channel, off, weight_only, "max"},
    {"MAMBA_MOE_FP8_AGGRESSIVE_CFG", all_layers, fp8, fp8, mamba_aggressive, "max"},
    {"MAMBA_MOE_FP8_CONSERVATIVE_CFG", all_layers, fp8, fp8, mamba_conservative, "max"},
    {"MAMBA_MOE_NVFP4_AGGRESSIVE_CFG", all_layers, nvfp4, nvfp4, mamba_aggressive, "max"},
    {"MAMBA_MOE_NVFP4_CONSERVATIVE_CFG", all_layers, nvfp4, nvfp4, mamba_conservative, "max"},
    {"MXFP4_DEFAULT_CFG", all_layers, mxfp4, mxfp4, common, "null"},
    {"MXFP4_MLP_WEIGHT_ONLY_CFG", mlp_layers, mxfp4, off, common, "null"},
    {"MXFP6_DEFAULT_CFG", all_layers, mxfp6, mxfp6, common, "null"},
    {"MXFP8_DEFAULT_CFG", all_layers, mxfp8, mxfp8, common, "null"},
    {"MXINT8_DEFAULT_CFG", all_layers, mxint8, mxint8, common, "null"},
    {"NVFP4_AFFINE_KV_CFG", "*[kv]_bmm_quantizer", nvfp4, nvfp4_affine, none, ""},
    {"NVFP4_AWQ_CLIP_CFG", all_layers, nvfp4, nvfp4, common, "awq_clip {}"},
    {"NVFP4_AWQ_FULL_CFG", all_layers, nvfp4, nvfp4, common, "awq_full alpha_step=0.1"},
    {"NVFP4_AWQ_LITE_CFG", all_layers, nvfp4, nvfp4, common, "awq_lite"},
    {"NVFP4_DEFAULT_CFG", all_layers, nvfp4, nvfp4, common, "max"},
    {"NVFP4_EXPERTS_ONLY_CFG", expert_layers, nvfp4, nvfp4, common, "max"},
    {"NVFP4_FOUR_OVER_SIX_CFG", all_layers, nvfp4_four_six, nvfp4, common,
     "mse fp8_scale_sweep=false start_multiplier=1.0 stop_multiplier=1.5 step_size=0.5"},
    {"NVFP4_FP8_MHA_CONFIG", all_layers, nvfp4, nvfp4, none, "max"},
    {"NVFP4_KV_CFG", "*[kv]_bmm_quantizer", nvfp4, off, none, ""},
    {"NVFP4_KV_ROTATE_CFG", "", off, off, none, "max"},
    {"NVFP4_MLP_ONLY_CFG", mlp_and_experts, nvfp4, nvfp4, common, "max"},
    {"NVFP4_MLP_WEIGHT_ONLY_CFG", mlp_layers, nvfp4_b32, off, common, "max"},
    {"NVFP4_OMLP_ONLY_CFG", o_mlp_layers, nvfp4, nvfp4, common, "max"},
    {"NVFP4_SVDQUANT_DEFAULT_CFG", all_layers, nvfp4, nvfp4, common, "svdquant lowrank=32"},
    {"NVFP4_W4A4_WEIGHT_LOCAL_HESSIAN_CFG", all_layers, nvfp4_static, nvfp4, common,
     "local_hessian fp8_scale_sweep=true"},
    {"NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG", all_layers, nvfp4_static, nvfp4, common, "mse fp8_scale_sweep=true"},
    {"W4A16_NVFP4_CFG", all_layers, nvfp4, off, common, "max"},
    {"W4A8_AWQ_BETA_CFG", all_layers, int4_then_fp8, fp8, common, "awq_lite"},
    {"W4A8_MXFP4_FP8_CFG", all_layers, mxfp4, fp8, common, "null"},
    {"W4A8_NVFP4_FP8_CFG", all_layers, nvfp4_b32, fp8, common, "max"},
};

/// Attention entries that two presets have on top: pattern, element.
struct extra_entry {
  std::string_view preset;
  std::string_view pattern;
  preset_element element;
};

inline constexpr extra_entry extra_entries[] = {
    {"NVFP4_FP8_MHA_CONFIG", "*output_quantizer", off},
    {"NVFP4_FP8_MHA_CONFIG", "*[qkv]_bmm_quantizer", fp8},
    {"NVFP4_FP8_MHA_CONFIG", "*softmax_quantizer", fp8},
    {"NVFP4_FP8_MHA_CONFIG", "*p_bmm_quantizer", fp8},
    {"NVFP4_FP8_MHA_CONFIG", "transformer_blocks*bmm2_output_quantizer", fp8},
    {"NVFP4_KV_ROTATE_CFG", "*q_bmm_quantizer", rotate_only},
    {"NVFP4_KV_ROTATE_CFG", "*k_bmm_quantizer", nvfp4_rotated},
    {"NVFP4_KV_ROTATE_CFG", "*v_bmm_quantizer", nvfp4},
};

/// Turned off by nearly every preset: what is small and sensitive, or not a matrix product.
inline constexpr std::string_view common_off[] = {
    "*block_sparse_moe.gate*", "*linear_attn.conv1d*", "*self_attention.conv1d*", "*linear_attn.in_proj_a*",
    "*linear_attn.in_proj_b*", "*lm_head*", "*mixer.conv1d*", "*mlp.gate.*", "*mlp.shared_expert_gate.*",
    "*output_layer*", "*proj_out.*", "*router*", "mtp.*", "output.*", "*embed_vision*", "*vision_tower*", "*visual*",
    "*vision_model*", "*multi_modal_projector*"};
inline constexpr std::string_view classes_off[] = {"nn.BatchNorm1d", "nn.BatchNorm2d", "nn.BatchNorm3d", "nn.LeakyReLU",
                                                   "nn.Embedding"};
/// Mamba hybrids: the first eight for `mamba_aggressive`, all for `mamba_conservative`.
inline constexpr std::string_view mamba_off[] = {
    "*fc1_latent_proj*", "*fc2_latent_proj*", "*q_proj*", "*k_proj*", "*v_proj*", "*o_proj*",
    "*self_attention.linear_qkv*", "*self_attention.linear_proj*", "*mixer.in_proj*", "*mixer.out_proj*"};
inline constexpr int mamba_aggressive_count = 8;

}  // namespace mixbit::detail::presets
