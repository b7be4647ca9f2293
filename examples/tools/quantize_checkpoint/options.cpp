#include "options.hpp"

#include <charconv>
#include <string_view>

#include "../command_line.hpp"
#include "mixbit/config/grouping_rule.hpp"
#include "mixbit/core/error.hpp"

namespace quantize_checkpoint {

char const* const usage_text =
    R"(quantize_checkpoint: a Hugging Face checkpoint with quantized weights, without a model that runs

usage: quantize_checkpoint --model DIR --out DIR (--preset NAME | --config FILE | --plan FILE |
                           --effective-bits X --formats A,B,..) [option...]

Reads model.safetensors (or its shards) and config.json of a folder, whatever the model is, and writes the same
checkpoint with its matrices quantized, in ModelOpt's unified form, which vLLM, TensorRT-LLM and SGLang read, or in
compressed-tensors', which vLLM and transformers read; or one file model.gguf for llama.cpp, of a Llama.
Embeddings, output heads, routers, norms and all that is not a matrix of float32, float16 or bfloat16 stay byte for
byte. Weights stream from a memory map: memory does not grow with the checkpoint. Formats that quantize inputs with a
static scale need data that runs through the model, and so do AWQ, GPTQ and the like: they are refused.

  --model DIR          the unquantized checkpoint
  --out DIR            where to write; apart from --model. Files of the source that are neither weights nor config.json
                       (tokenizer and the like) are copied
  --to FORM            modelopt (default); compressed-tensors, which vLLM takes INT8 and INT4 in as well; or gguf:
                       weights in Q8_0, Q4_0, MXFP4 and NVFP4, other matrices in their type, vectors in float32,
                       no tokenizer, and no other file of --out but plan.json is touched
  --preset NAME        one format for all: INT8_WEIGHT_ONLY_CFG, INT4_BLOCKWISE_WEIGHT_ONLY_CFG, W4A16_NVFP4_CFG,
                       MXFP8_DEFAULT_CFG, FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG, FP8_PER_CHANNEL_PER_TOKEN_CFG;
                       with --to gguf: Q8_0, Q4_0, MXFP4, NVFP4, and presets that are one of these
  --config FILE        a quantize() config, as JSON
  --plan FILE          a plan.json: what each layer gets
  --effective-bits X   the least total weight error within X bits a weight, scales included; exact. Writes plan.json too
  --formats A,B,..     presets or files to choose from; layers that a fused kernel runs as one get the same
  --activations FILE   safetensors with MODULE.input_square_mean, the mean of x² of each of the layer's inputs: weight
                       errors count by it. A layer without one counts as inputs of 1
  --memory BYTES       at most so much anonymous memory; K, M and G stand for 2^10, 2^20 and 2^30 (default 1G)
  --threads N          default: one a core
  --dry-run            says what would become of every tensor, and writes nothing (--out is not needed)
  --help               this text, alone

Killed, it goes on at the tensor where it was when it is run again with the same options; until all is written there is
only a hidden folder in --out. Exit status 2 and one line on stderr for wrong usage or files; nothing is written then.
)";

namespace {

[[noreturn]] void refuse(std::string const& what) { tools::refuse("quantize_checkpoint", what); }

template <class T>
T number_from(std::string const& option, std::string_view text, char const* what, std::string_view shown) {
  T n{};
  auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (code != std::errc{} || end != text.data() + text.size() || n < 1)
    refuse(option + " '" + std::string{shown} + "' is not " + what);
  return n;
}

std::int64_t bytes_from(std::string const& option, std::string const& value) {
  constexpr std::string_view units = "KMG";
  auto const unit = units.find(value.back());
  std::string_view const digits = std::string_view{value}.substr(0, value.size() - (unit == units.npos ? 0 : 1));
  constexpr char const* what = "a number of bytes above 0, with K, M or G behind it or not";
  auto const n = number_from<std::int64_t>(option, digits, what, value);
  int const shift = unit == units.npos ? 0 : 10 * (static_cast<int>(unit) + 1);
  if (n > (std::int64_t{1} << 62) >> shift) refuse(option + " '" + value + "' is not " + what);
  return n << shift;
}

tools::known_options options_of(options& o) {
  using tools::setter;
  auto const text = [](std::string& target) { return setter{[&](auto const&, auto const& v) { target = v; }}; };
  auto const bits = [&o](auto const& option, std::string const& v) {
    try {
      o.target.emplace(std::string_view{v});
    } catch (mixbit::error const& e) {
      refuse(option + ": " + std::string{e.message()});
    }
  };
  auto const formats = [&o](auto const& option, std::string const& v) {
    for (auto const name : mixbit::detail::split(v, ',')) {
      if (name.empty()) refuse(option + " '" + v + "' has an empty name");
      o.formats.emplace_back(name);
    }
  };
  return {{{"--model", text(o.model)}, {"--out", text(o.out)}, {"--to", text(o.to)},
           {"--preset", text(o.preset)},
           {"--config", text(o.config)}, {"--plan", text(o.plan)}, {"--effective-bits", bits},
           {"--formats", formats}, {"--activations", text(o.activations)},
           {"--memory", [&o](auto const& option, auto const& v) { o.memory = bytes_from(option, v); }},
           {"--threads", [&o](auto const& option, auto const& v) {
              o.threads = number_from<int>(option, v, "a number of threads from 1 to 1024", v);
              if (o.threads > 1024) refuse(option + " " + v + " is not a number of threads from 1 to 1024");
            }}},
          {{"--dry-run", &o.dry_run}}};
}

void check_together(options const& o) {
  if (o.model.empty()) refuse("--model DIR is needed");
  if (o.out.empty() && !o.dry_run) refuse("--out DIR is needed");
  if (o.to != "modelopt" && o.to != "compressed-tensors" && o.to != "gguf")
    refuse("--to '" + o.to + "' is none of modelopt, compressed-tensors and gguf");
  int const ways = !o.preset.empty() + !o.config.empty() + !o.plan.empty() + o.target.has_value();
  if (ways != 1) refuse("exactly one of --preset, --config, --plan and --effective-bits is needed");
  if (o.target && o.formats.empty()) refuse("--effective-bits needs --formats to choose from");
  if (!o.target && !o.formats.empty()) refuse("--formats needs --effective-bits");
  if (!o.target && !o.activations.empty()) refuse("--activations needs --effective-bits");
}

}  // namespace

options parse_options(int count, char const* const* arguments) {
  options o;
  o.help = !tools::read_options("quantize_checkpoint", count, arguments, options_of(o));
  if (!o.help) check_together(o);
  return o;
}

}  // namespace quantize_checkpoint
