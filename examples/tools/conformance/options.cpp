#include "options.hpp"

#include <charconv>
#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "../command_line.hpp"
#include "mixbit/core/error.hpp"
#include "mixbit/core/tensor_view.hpp"

namespace conformance {

char const* const usage_text =
    R"(conformance: hold somebody's quantization kernel to the reference, and name the convention that it follows

  conformance --format F --input IN --output OUT [options]                    fake-quantized or dequantized values
  conformance --format F --input IN --codes C [--scales S] [options]          encoded tensors
  conformance --format F --vectors DIR [options]                              write inputs for your kernel to run on

  --format F             INT2..INT8, INT16, UINT1..UINT8, UINT16, FP8 (E4M3), FP8_E5M2, FP6_E3M2, FP6_E2M3,
                         FP5_E2M2, FP5_E3M1, FP4, NF4, MXFP8, MXFP8_E5M2, MXFP6, MXFP6_E2M3, MXFP4, MXINT8,
                         NVFP4, NVFP4_STATIC, NVFP4_FOUR_OVER_SIX; a preset; or a JSON file with a config or with the
                         attributes of one quantizer
  --quantizer NAME       which quantizer of a preset or config: weight_quantizer (default), input_quantizer or
                         output_quantizer
  --input FILE[:TENSOR]  what the kernel was given: float32, float16 or bfloat16
  --output FILE[:TENSOR] what it gave, in the type of the input
  --codes FILE[:TENSOR]  what it encoded: packed bytes, or integers of the input's shape
  --scales FILE[:TENSOR] one scale a group, in row-major order of the groups
  --tensor-scale FILE[:TENSOR]   the float32 scale of an NVFP4 tensor
  --amax FILE[:TENSOR]   amax of the groups that the kernel was given; default: the largest magnitudes of the input
  --tensor-amax FILE[:TENSOR]    amax of the whole tensor, for NVFP4
  --axis N               groups: one an index of axis N
  --block N              groups: blocks of N along the last axis; default: what the format says, else one group
  --policy P             stored (default), modelopt, modelopt_triton or modelopt_pack (docs/numerics.md)
  --mx RULE              scale rule of MX blocks: nv (default) or ocp
  --layout L             where codes lie: bytes, rows (dense rows, low bits first), flat (two a byte over the flat
                         tensor, high nibble first) or pairs (rows 2i and 2i+1 in a byte, low nibble first);
                         default: as the library's files hold them
  --scale-type T         f32 (default), f16 or bf16: the type in which scales that are ratios are held
  --json FILE            the report as JSON, too
  --vectors DIR          write DIR/inputs.safetensors, and DIR/inputs/NAME.npy where npy has the type: ties, outliers,
                         subnormals, zeros of both signs, NaN, infinities, ragged blocks
  --dtype T              of --vectors: f32 (default), f16 or bf16
  --help                 this text; alone

FILE is a safetensors or npy file, or a folder of npy files. Without :TENSOR all tensors of the input are compared, by
name, in one report. Exit status: 0 conforms, 1 differs, 2 wrong usage or files, with one line that says what.
)";

namespace {

using tools::setter;

[[noreturn]] void refuse(std::string const& what) { tools::refuse("conformance", what); }

/// Sets `target` to what the value is a name of.
template <class Target, class T>
setter choice(Target& target, std::vector<std::pair<std::string, T>> names) {
  return [&target, names = std::move(names)](std::string const& option, std::string const& value) {
    std::string list;
    for (auto const& [name, meaning] : names) {
      if (name == value) {
        target = meaning;
        return;
      }
      list += (list.empty() ? "" : ", ") + name;
    }
    refuse(option + " '" + value + "' is none of " + list);
  };
}

setter number(std::optional<int>& target, int least) {
  return [&target, least](std::string const& option, std::string const& value) {
    int n = 0;
    auto const [end, code] = std::from_chars(value.data(), value.data() + value.size(), n);
    if (code != std::errc{} || end != value.data() + value.size() || n < least)
      refuse(option + " '" + value + "' is not a whole number" + (least > 0 ? " above 0" : ""));
    target = n;
  };
}

std::map<std::string, setter> setters_of(options& o) {
  auto const text = [](std::string& target) { return setter{[&](auto const&, auto const& v) { target = v; }}; };
  std::vector<std::pair<std::string, mixbit::dtype>> const types{
      {"f32", mixbit::dtype::f32}, {"f16", mixbit::dtype::f16}, {"bf16", mixbit::dtype::bf16}};
  std::vector<std::pair<std::string, mixbit::policy>> policies;
  for (auto p : {mixbit::policy::stored, mixbit::policy::modelopt, mixbit::policy::modelopt_triton,
                 mixbit::policy::modelopt_pack})
    policies.emplace_back(name_of(p), p);
  std::vector<std::pair<std::string, mixbit::packing>> const layouts{
      {"bytes", mixbit::packing::bytes},
      {"rows", mixbit::packing::dense_rows},
      {"flat", mixbit::packing::nibbles_high_first},
      {"pairs", mixbit::packing::nibbles_row_pairs}};
  std::vector<std::pair<std::string, mixbit::scale_rule>> const rules{{"nv", mixbit::scale_rule::mx_nv},
                                                                      {"ocp", mixbit::scale_rule::mx_ocp}};
  return {{"--format", text(o.format)},
          {"--quantizer", text(o.quantizer)},
          {"--input", text(o.input)},
          {"--output", text(o.output)},
          {"--codes", text(o.codes)},
          {"--scales", text(o.scales)},
          {"--tensor-scale", text(o.tensor_scale)},
          {"--amax", text(o.amax)},
          {"--tensor-amax", text(o.tensor_amax)},
          {"--axis", number(o.axis, -mixbit::max_rank)},
          {"--block", number(o.block, 1)},
          {"--policy", choice(o.policy, policies)},
          {"--mx", choice(o.mx, rules)},
          {"--layout", choice(o.layout, layouts)},
          {"--scale-type", choice(o.scale_type, types)},
          {"--json", text(o.json)},
          {"--vectors", text(o.vectors)},
          {"--dtype", choice(o.type, types)}};
}

void check_together(options const& o, std::set<std::string> const& given) {
  if (o.format.empty()) refuse("--format is missing");
  if (o.axis && o.block) refuse("--axis and --block contradict each other");
  if (!o.vectors.empty()) {
    for (char const* option : {"--input", "--output", "--codes", "--scales", "--tensor-scale", "--amax",
                               "--tensor-amax", "--json"})
      if (given.contains(option)) refuse(std::string{option} + " contradicts --vectors");
    return;
  }
  if (given.contains("--dtype")) refuse("--dtype belongs to --vectors");
  if (o.input.empty()) refuse("--input is missing (or give --vectors)");
  if (o.output.empty() && o.codes.empty() && o.scales.empty() && o.tensor_scale.empty())
    refuse("there is nothing to compare: give --output, --codes, --scales or --tensor-scale");
}

}  // namespace

options parse_options(int count, char const* const* arguments) {
  options o;
  auto const given = tools::read_options("conformance", count, arguments, {setters_of(o)});
  o.help = !given;
  if (o.help) return o;
  check_together(o, *given);
  return o;
}

}  // namespace conformance
