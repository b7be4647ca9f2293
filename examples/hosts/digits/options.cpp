#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>
#include <string_view>

#include "mixbit/core/error.hpp"

namespace digits {

char const* const usage_text =
    R"(digits: train a small convolutional network, then choose a number format for each layer under a budget

  digits --data FILE --out DIR [options]

  --data FILE          digits.csv: label,p0,..,p63 and an image of 8x8 pixels a line; every fifth is for testing
  --out DIR            where results go; nothing is written there unless everything succeeds
  --formats A,B,..     preset names, JSON files, or INT4_B16_WEIGHT_ONLY, which is this program's own;
                       default: INT8_DEFAULT_CFG,FP8_DEFAULT_CFG,INT4_B16_WEIGHT_ONLY
  --effective-bits X   budget: bits a weight on average, scales included; default: 7.0
  --seed N             of the first weights and the order of images; default: 1
  --epochs N           times that training sees every image; default: 10
  --help               this text; alone

Writes candidate_stats.json, manifest.json, plan.json, layer-sensitivity-report.md and model.safetensors (the encoded
weights with their scales). Exit status: 0, or 2 with one line on what is wrong.
)";

namespace {

[[noreturn]] void refuse(std::string const& what) {
  mixbit::fail(mixbit::error_id::usage, what, "; see digits --help");
}

template <class Number>
Number whole_number(std::string const& option, std::string const& value, Number least) {
  Number number = 0;
  auto const [end, code] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (code != std::errc{} || end != value.data() + value.size() || number < least)
    refuse(option + " '" + value + "' is not a whole number from " + std::to_string(least) + " on");
  return number;
}

std::vector<std::string> comma_list(std::string const& option, std::string const& value) {
  std::vector<std::string> items;
  std::istringstream in{value + ','};
  for (std::string item; std::getline(in, item, ',');) {
    if (item.empty()) refuse(option + " '" + value + "' has an empty item");
    items.push_back(item);
  }
  return items;
}

constexpr std::string_view known[] = {"--data", "--out", "--formats", "--effective-bits", "--seed", "--epochs"};

void set(options& o, std::string const& name, std::string const& value) {
  if (name == "--data") o.data = value;
  if (name == "--out") o.out = value;
  if (name == "--formats") o.formats = comma_list(name, value);
  if (name == "--effective-bits") o.effective_bits = value;
  if (name == "--seed") o.seed = whole_number<std::uint32_t>(name, value, 0);
  if (name == "--epochs") o.epochs = whole_number(name, value, 1);
}

}  // namespace

options parse_options(int count, char const* const* arguments) {
  options o;
  std::set<std::string> given;
  for (int i = 1; i < count; i += 2) {
    std::string const name = arguments[i], value = i + 1 < count ? arguments[i + 1] : "";
    if (name == "--help" || name == "-h") {
      if (count != 2) refuse(name + " takes no other arguments");
      o.help = true;
      return o;
    }
    if (std::find(std::begin(known), std::end(known), name) == std::end(known)) refuse("unknown option '" + name + "'");
    if (value.empty() || value.starts_with("--")) refuse(name + " needs a value");
    if (!given.insert(name).second) refuse(name + " is given twice");
    set(o, name, value);
  }
  if (o.data.empty()) refuse("--data is missing");
  if (o.out.empty()) refuse("--out is missing");
  return o;
}

}  // namespace digits
