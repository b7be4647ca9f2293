// Suite export: the Hugging Face checkpoints that ModelOpt writes of data/byte-lm. Weights come from the model's own
// file. The inputs of static quantizers are made so that their amax is the golden's input_scale times the format's
// range (448, 127 or 2688), keys and values so that theirs is k_scale and v_scale times 448: what a forward pass
// calibrates to is tested with the host that has one. pre_quant_scales are the golden's (export_scales.hpp).
#pragma once

#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "golden_suites/export_comparison.hpp"
#include "golden_suites/export_scales.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/io/hf_checkpoint.hpp"
#include "mixbit/model/shared_state.hpp"
#include "support/checkpoint_host.hpp"
#include "support/temporary_folder.hpp"

namespace golden {

class export_suite {
 public:
  export_suite(std::filesystem::path dir, std::filesystem::path model_dir)
      : dir_{std::move(dir) / "export"}, model_dir_{std::move(model_dir)} {
    result_.name = "export";
  }

  suite_result run() {
    std::pair<char const*, char const*> const uniform[] = {{"fp8", "FP8_DEFAULT_CFG"},
                                                           {"fp8_pc_pt", "FP8_PER_CHANNEL_PER_TOKEN_CFG"},
                                                           {"fp8_pb_wo", "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"},
                                                           {"int8_wo", "INT8_WEIGHT_ONLY_CFG"},
                                                           {"nvfp4", "NVFP4_DEFAULT_CFG"},
                                                           {"w4a16_nvfp4", "W4A16_NVFP4_CFG"},
                                                           {"mxfp8", "MXFP8_DEFAULT_CFG"}};
    for (auto const& form : uniform)
      if (there(form.first)) attempt(form.first, [&] { compare(form.first, mixbit::preset(form.second)); });
    if (there("mixed")) attempt("mixed", [&] { compare("mixed", mixed_config()); });
    if (there("fp8_kv"))
      attempt("fp8_kv", [&] {
        compare("fp8_kv", mixbit::combine(mixbit::preset("FP8_DEFAULT_CFG"), mixbit::preset("FP8_KV_CFG")));
      });
    std::pair<char const*, char const*> const scaled[] = {
        {"int4_awq", "INT4_AWQ_CFG"}, {"w4a8_awq", "W4A8_AWQ_BETA_CFG"}, {"int8_sq", "INT8_SMOOTHQUANT_CFG"}};
    for (auto const& form : scaled)
      if (there(form.first)) attempt(form.first, [&] { compare(form.first, given_scales(form.second)); });
    return result_;
  }

 private:
  using json = mixbit::json_document;

  bool there(char const* name) {
    bool const exists = std::filesystem::exists(dir_ / name);
    if (!exists) result_.skip(1, std::string{name} + " is not in this folder");
    return exists;
  }

  /// A checkpoint that cannot be read fails alone. JSON of the wrong shape is hf_quant_config.json's: the other files
  /// are only compared.
  template <class Call>
  void attempt(std::string const& name, Call&& call) {
    try {
      call();
    } catch (nlohmann::json::exception const& e) {
      result_.check(false, (dir_ / name / "hf_quant_config.json").string() + ": " + reason_of(e));
    } catch (mixbit::error const& e) {
      result_.check(false, name + ": " + reason_of(e));
    }
  }

  /// The search result that ModelOpt exported: the recipe is what its own hf_quant_config.json says.
  mixbit::quantize_config mixed_config() const {
    std::map<std::string, char const*> const presets{{"W8A16", "INT8_WEIGHT_ONLY_CFG"}, {"FP8", "FP8_DEFAULT_CFG"}};
    auto const recipe = mixbit::read_json_file(dir_ / "mixed" / "hf_quant_config.json");
    auto config = mixbit::test::nothing_on();
    for (auto const& [layer, fields] : recipe.at("quantization").at("quantized_layers").items())
      for (auto const& e : mixbit::preset(presets.at(fields.at("quant_algo").get<std::string>())).entries)
        if (e.cfg && e.enable && !e.parent_class && e.quantizer_name.label().starts_with("*"))
          mixbit::test::turn_on(config, layer + "." + e.quantizer_name.label().substr(1), e.cfg->front());
    return config;
  }

  /// Calibrated by max under the golden's scales, in blocks of 32: 352 inputs have no whole block of 128.
  static mixbit::quantize_config given_scales(char const* preset) {
    auto config = mixbit::preset(preset);
    for (auto& e : config.entries)
      if (e.cfg)
        for (auto& a : *e.cfg)
          if (a.block_sizes && !a.block_sizes->axes.empty()) a.block_sizes->axes.front().size = 32;
    config.algorithm = "max";
    return config;
  }

  /// The modules of a Llama in the order in which transformers makes them.
  void load(mixbit::test::checkpoint_host& host) const {
    auto const file = mixbit::safetensors_file::open(model_dir_ / "model.safetensors");
    host.load(file, "model.embed_tokens", "nn.Embedding", mixbit::layouts::lookup);
    for (int layer = 0; file.contains("model.layers." + std::to_string(layer) + ".mlp.up_proj.weight"); ++layer) {
      for (char const* leaf : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                               "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
        host.load(file, "model.layers." + std::to_string(layer) + "." + leaf);
      host.add_attention("model.layers." + std::to_string(layer) + ".self_attn");
    }
    host.load(file, "lm_head");
  }

  /// The float32 whose quotient by `range` is `scale`, to the bit where there is one.
  static float amax_of(float scale, float range) {
    float const near = scale * range;
    for (float const amax : {near, std::nextafter(near, 0.0f), std::nextafter(near, INFINITY)})
      if (amax / range == scale) return amax;
    return near;
  }

  /// What the golden was calibrated on, as far as its file tells. `scales`: those that inputs are multiplied by.
  static void show(mixbit::test::checkpoint_host& host, mixbit::safetensors_file const& golden, float range,
                   export_scales const& scales) {
    for (auto const& tensor : golden.names()) {
      if (tensor.ends_with(".input_scale")) {
        std::string const layer = tensor.substr(0, tensor.size() - 12);
        auto const& scale = scales.of(layer);
        host.show_scaled(layer, amax_of(golden.read_as_float(tensor)[0], range), scale.empty() ? 1.0f : scale[0]);
      }
      if (tensor.ends_with(".k_proj.k_scale")) {
        std::string const attention = tensor.substr(0, tensor.size() - 15);
        host.show_cache(attention, amax_of(golden.read_as_float(tensor)[0], 448.0f),
                        amax_of(golden.read_as_float(attention + ".v_proj.v_scale")[0], 448.0f));
      }
    }
  }

  void compare(std::string const& name, mixbit::quantize_config const& config) {
    auto const golden = mixbit::safetensors_file::open(dir_ / name / "model.safetensors");
    export_scales scales{golden, mixbit::safetensors_file::open(model_dir_ / "model.safetensors")};
    mixbit::test::checkpoint_host host;
    load(host);
    mixbit::model<mixbit::test::cpu_backend> m{host};
    bool const is_nvfp4 = name.ends_with("nvfp4");
    float const range = is_nvfp4 ? 6.0f * 448.0f : name == "int8_sq" ? 127.0f : 448.0f;
    auto const loop = [&] { show(host, golden, range, scales); };
    mixbit::quantize(m, config, loop);
    if (is_nvfp4) mixbit::share_state(m);  // as ModelOpt's exporter does unasked: fused layers have one weight_scale_2
    if (scales.any()) {
      scales.give_to(m);
      mixbit::calibrate(m, "max", loop);
      scales.fold(m);
    }
    if (name == "int4_awq") scales.round_weights_to_half(m);
    mixbit::test::temporary_folder ours;
    mixbit::export_hf_checkpoint(
        m, model_dir_, ours.path(),
        {.scalar_single_block = true, .share_fused_blocks = true, .preceding = scales.folded()});
    for (char const* file : {"config.json", "hf_quant_config.json", "generation_config.json"})
      compare_json(name, file, mixbit::read_json_file(ours / file));
    export_comparison const files{mixbit::safetensors_file::open(ours / "model.safetensors"), golden, scales};
    result_.check(files.same_names(), name + ": other tensors, or in another order");
    result_.check(files.same_metadata(), name + ": other metadata");
    for (auto const& tensor : golden.names())
      if (auto const why = files.difference(tensor); files.has(tensor))
        result_.check(why.empty(), name + "/" + tensor + ": " + why);
  }

  /// Keys, their order and values, but for who wrote it.
  void compare_json(std::string const& name, char const* file, json ours) {
    json theirs = mixbit::read_json_file(dir_ / name / file);
    bool const named = ours.contains("producer") == theirs.contains("producer");
    for (json* j : {&ours, &theirs}) {
      if (!j->is_object()) continue;
      j->erase("producer");
      if (auto const at = j->find("quantization_config"); at != j->end() && at->is_object()) at->erase("producer");
    }
    result_.check(named && ours == theirs, name + ": another " + file);
  }

  std::filesystem::path dir_, model_dir_;
  suite_result result_;
};

}  // namespace golden

/// `model_dir` holds the model that was exported, data/byte-lm.
inline suite_result run_export(std::filesystem::path const& dir, std::filesystem::path const& model_dir) {
  return golden::export_suite{dir, model_dir}.run();
}
