// The command line of byte_lm.
#pragma once

#include <charconv>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/autoquant/budget.hpp"
#include "mixbit/core/error.hpp"

namespace byte_lm {

inline constexpr char const* usage_text =
    R"(byte_lm: quantize a byte-level Llama, one recipe a group of layers, under a budget of bits, bytes or time

  byte_lm --model DIR --out DIR --formats A,B,.. --effective-bits X [options]    search
  byte_lm --model DIR --out DIR --preset NAME [options]                          one preset for the whole model
  byte_lm --model DIR --out DIR --plan FILE [options]                            a plan found before, without a search

  --model DIR            folder with config.json and model.safetensors (Hugging Face Llama over bytes)
  --out DIR              where results go, apart from the model's folder; nothing is written there unless everything
                         succeeds
  --text FILE            text to read; default: Debian's /usr/share/common-licenses, put together,
                         which data/byte-lm was trained on: its losses there are not those on other text
  --windows FILE         JSON with window, calibration_windows, score_windows, validation_windows (byte offsets; of
                         the first two, one list a step); default: windows taken evenly from the text, of up to 512
                         tokens
  --formats A,B,..       recipes of the search: preset names (FP8_DEFAULT_CFG) or JSON files; all-layers:A is A without
                         the rules by which it leaves layers out, and is named CUSTOM_0, the next CUSTOM_1
  --effective-bits X     budget: bits a weight on average, a decimal above 0 and at most 16
  --max-bytes N          at most N bytes for all weights, beside --effective-bits or in its place
  --latency FILE         a budget of time beside those, or in their place. JSON: {"limit": MICROSECONDS, "latency":
                         {GROUP: {FORMAT: MICROSECONDS, ..}, ..}}. CSV: lines 'GROUP,FORMAT,MICROSECONDS' and one
                         'limit,,MICROSECONDS'. GROUP as --dry-run prints it, with or without .quant_recipe, or * for
                         those that the table does not name; FORMAT a format of it, or NONE. null (CSV: -) in place of
                         the number: not allowed there. Every format of every group needs an entry
  --preset NAME[,KV]     a preset's name or a JSON file: quantize() with it instead of searching; with the entries of
                         others behind a comma, as FP8_DEFAULT_CFG,FP8_KV_CFG
  --algorithm A          how --preset is calibrated, instead of its own way: a name (awq_lite, smoothquant, max) or JSON
                         as in a config, '{"method": "smoothquant", "alpha": 0.5}', or a list of either ([]: max)
  --plan FILE            a plan.json: apply it instead of searching
  --method WHICH         how sensitivity is measured: gradient (default), one forward and backward a step; or kl_div, a
                         forward for each format of each group, and no backward
  --score-memory BYTES   by gradient: what layers' output differences may take from a forward to its backward; those
                         that do not fit are computed again there. Default: all are. Results do not depend on it
  --refine N             after the search, N rounds at most that measure the divergence from the unquantized model
                         around the choice, on the score windows, and keep the best; each takes as long as kl_div
  --dry-run              print what a search would do - rules, groups, costs, range, forwards, memory - and end without
                         a forward or a file; --out is not needed
  --resolved FILE        with --dry-run: the same as JSON
  --checkpoint DIR       where the search keeps what is done, after each recipe and each step: killed, it goes on there,
                         to the same results. A folder apart from --model and --out; of another search it is refused
  --disabled-layers P,.. layers the search leaves alone; wildcards * ? [..] [!..]
  --calib-steps N        calibration steps to use; default: all in the windows
  --score-steps N        scoring steps to use; default: all in the windows
  --calib-from WHICH     windows that calibrate: score or calibration; default: score (with --preset: calibration)
  --numerics WHICH       stored: what the checkpoint will compute (default); modelopt: what ModelOpt simulates
  --cost WHICH           exact: bits as stored, scales included (default); modelopt: elements times nominal bits
  --threads N            threads; default: all cores. Results do not depend on it
  --help                 this text; alone

Writes candidate_stats.json, manifest.json, layer-sensitivity-report.md, report.html, plan.json and quant_config.json,
the same mix for --preset (search), quantizers.json, evaluation.json and checkpoint/ (always). Layers that read one
input get one scale of smoothquant's or awq's, and with --preset awq's go into the norms before, as in ModelOpt's
checkpoints; the loss is of that. There is no checkpoint of a low-rank branch, or of what has no form in one: such a run
is measured, and a line says why.
Without a search, an earlier search's files in DIR are removed, but for one that --plan or --preset names. Exit status:
0, or 2 with one line on what is wrong.
)";

struct options {
  bool help = false, dry_run = false;
  std::string model, out, text, windows, algorithm, plan, checkpoint, latency, resolved;
  std::vector<std::string> formats, disabled_layers, preset;
  std::optional<mixbit::effective_bits> effective_bits;
  std::optional<std::int64_t> max_bytes, score_memory;
  std::string method = "gradient", numerics = "stored", cost = "exact", calib_from;
  std::optional<int> calib_steps, score_steps, threads, refine;

  bool searches() const { return preset.empty() && plan.empty(); }
};

namespace detail {

[[noreturn]] inline void refuse(std::string const& what) {
  mixbit::fail(mixbit::error_id::usage, what, "; see byte_lm --help");
}

inline std::vector<std::string> comma_list(std::string const& option, std::string const& value) {
  std::vector<std::string> items;
  std::istringstream in{value};
  for (std::string item; std::getline(in, item, ',');) {
    if (item.empty()) refuse(option + " '" + value + "' has an empty item");
    items.push_back(item);
  }
  if (items.empty() || value.back() == ',') refuse(option + " '" + value + "' has an empty item");
  return items;
}

template <class Number>
Number positive_number(std::string const& option, std::string const& value, Number largest) {
  Number number = 0;
  auto const [end, code] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (code != std::errc{} || end != value.data() + value.size() || number < 1 || number > largest)
    refuse(option + " '" + value + "' is not a whole number from 1 to " + std::to_string(largest));
  return number;
}

inline mixbit::effective_bits bits_of(std::string const& option, std::string const& value) {
  try {
    return mixbit::effective_bits{std::string_view{value}};
  } catch (mixbit::error const& e) {
    refuse(option + ": " + std::string{e.message()});
  }
}

inline std::string one_of(std::string const& option, std::string const& value,
                          std::vector<std::string> const& allowed) {
  std::string list;
  for (auto const& a : allowed) {
    if (a == value) return value;
    list += (list.empty() ? "" : " or ") + a;
  }
  refuse(option + " '" + value + "' is not " + list);
}

inline void check_together(options const& o, std::map<std::string, bool> const& given) {
  if (o.model.empty()) refuse("--model is missing");
  if (o.out.empty() && !o.dry_run) refuse("--out is missing");
  if (!o.preset.empty() && !o.plan.empty()) refuse("--preset and --plan contradict each other");
  if (!o.algorithm.empty() && o.preset.empty()) refuse("--algorithm needs --preset");
  if (!o.resolved.empty() && !o.dry_run) refuse("--resolved needs --dry-run");
  char const* const instead = !o.preset.empty() ? "--preset" : "--plan";
  if (o.searches()) {
    if (o.formats.empty()) refuse("a search needs --formats (or give --preset or --plan)");
    if (!o.effective_bits && !o.max_bytes && o.latency.empty())
      refuse("a search needs --effective-bits, --max-bytes or --latency");
    if (o.score_memory && o.method != "gradient") refuse("--score-memory belongs to --method gradient");
    return;
  }
  for (char const* option :
       {"--formats", "--effective-bits", "--max-bytes", "--latency", "--checkpoint", "--disabled-layers",
        "--score-steps", "--score-memory", "--method", "--cost", "--refine", "--dry-run"})
    if (given.contains(option)) refuse(std::string{option} + " belongs to a search and contradicts " + instead);
}

}  // namespace detail

/// Throws mixbit::error (usage) for what is unknown, missing, repeated or contradicting.
inline options parse_options(int count, char const* const* arguments) {
  options o;
  using setter = std::function<void(std::string const& option, std::string const& value)>;
  auto const text = [](std::string& target) { return setter{[&](auto const&, auto const& v) { target = v; }}; };
  auto const list = [](auto& target) {
    return setter{[&](auto const& n, auto const& v) { target = detail::comma_list(n, v); }};
  };
  auto const number = [](auto& target, int largest) {
    return setter{
        [&target, largest](auto const& n, auto const& v) { target = detail::positive_number(n, v, largest); }};
  };
  auto const bytes = [](std::optional<std::int64_t>& target) {
    return setter{[&target](auto const& n, auto const& v) {
      target = detail::positive_number(n, v, std::int64_t{1} << 50);
    }};
  };
  auto const choice = [](std::string& target, std::vector<std::string> allowed) {
    return setter{[&target, allowed](auto const& n, auto const& v) { target = detail::one_of(n, v, allowed); }};
  };
  std::map<std::string, setter> const known{
      {"--model", text(o.model)},
      {"--out", text(o.out)},
      {"--text", text(o.text)},
      {"--windows", text(o.windows)},
      {"--formats", list(o.formats)},
      {"--effective-bits", {[&](auto const& n, auto const& v) { o.effective_bits = detail::bits_of(n, v); }}},
      {"--max-bytes", bytes(o.max_bytes)},
      {"--latency", text(o.latency)},
      {"--preset", list(o.preset)},
      {"--algorithm", text(o.algorithm)},
      {"--plan", text(o.plan)},
      {"--checkpoint", text(o.checkpoint)},
      {"--resolved", text(o.resolved)},
      {"--method", choice(o.method, {"gradient", "kl_div"})},
      {"--disabled-layers", list(o.disabled_layers)},
      {"--calib-steps", number(o.calib_steps, 1'000'000)},
      {"--score-steps", number(o.score_steps, 1'000'000)},
      {"--score-memory", bytes(o.score_memory)},
      {"--calib-from", choice(o.calib_from, {"score", "calibration"})},
      {"--numerics", choice(o.numerics, {"stored", "modelopt"})},
      {"--cost", choice(o.cost, {"exact", "modelopt"})},
      {"--refine", number(o.refine, 1000)},
      {"--threads", number(o.threads, 1024)},
  };
  std::map<std::string, bool> given;
  for (int i = 1; i < count; ++i) {
    std::string const name = arguments[i];
    if (name == "--help" || name == "-h") {
      if (count != 2) detail::refuse(name + " takes no other arguments");
      o.help = true;
      return o;
    }
    auto const at = known.find(name);
    if (at == known.end() && name != "--dry-run") detail::refuse("unknown option '" + name + "'");
    if (given[name]) detail::refuse(name + " is given twice");
    given[name] = true;
    if (name == "--dry-run") {
      o.dry_run = true;
      continue;
    }
    if (i + 1 == count || std::string_view{arguments[i + 1]}.starts_with("--")) detail::refuse(name + " needs a value");
    std::string const value = arguments[++i];
    if (value.empty()) detail::refuse(name + " has an empty value");
    at->second(name, value);
  }
  detail::check_together(o, given);
  return o;
}

}  // namespace byte_lm
