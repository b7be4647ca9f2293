#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <string_view>
#include <system_error>

#include "../command_line.hpp"
#include "mixbit/core/error.hpp"

namespace allocate {

char const* const usage_text =
    R"usage(allocate: pick a format for every layer from the statistics of a search, without the model

  allocate --stats FILE --effective-bits X [options]

  --stats FILE         candidate_stats.json or manifest.json, mixbit's or ModelOpt's: an object of groups, or one with
                       'candidate_stats' or 'layer_sensitivity'. A group has 'formats', 'scores' and 'costs', counted in
                       elements of 16 bits; its elements are 'uncompressed_cost', or else the largest of its costs
  --raw-scores         choose by 'raw_scores', as measured. 'scores' are what the search chose by; they differ where
                       it made them monotone
  --effective-bits X   at most X bits an element over all groups: a decimal number above 0 and at most 16
  --max-bytes N        at most N bytes for all groups (not of weighted costs); with --effective-bits the smaller counts
  --latency FILE       a budget of time beside that of bits. JSON: {"limit": MICROSECONDS, "latency": {GROUP: {FORMAT:
                       MICROSECONDS, ...}, ...}}. CSV: lines 'GROUP,FORMAT,MICROSECONDS' and one 'limit,,MICROSECONDS'.
                       GROUP is a group's name, with or without .quant_recipe, or * for those that the table does not
                       name; FORMAT one of its formats, with or without "(effective-bits: ...)". null (CSV: -) in place
                       of the number: the format is not allowed there. Every format of every group needs an entry.
                       Times count in nanoseconds, rounded up
  --minimax            make the worst score of a group as small as can be, and among such choices the sum; without it
                       the sum of scores counts alone
  --pareto FILE        choices that no other beats in bits and score at once, the latency left aside: .csv (a line a
                       choice, a column a group) or .json. 'missed': how much lower a score might be (0: exact)
  --pareto-points N    at most N of them, 2 or more: the best choices of N budgets from the first to the last, evenly
                       spaced; all: as many as there are, which can be 10^5 lines. Default 1000
  --pareto-range L:H   only those of L to H effective bits
  --seconds S          at most about S seconds for the choice and as many for the frontier; what is not proved or
                       might be missed then is said
  --memory BYTES       at most about as many for the choice's search, and for the frontier's lists and tables, beside
                       the statistics: from 2^20 to 2^37. Default 128 MiB and 256 MiB
  --out FILE           the plan as plan.json, with the formats' configs: what byte_lm --plan takes. A format's config is
                       its preset's or what 'configs' of some group has for it, as mixbit writes it for other formats;
                       and the statistics must name the groups' modules
  --help               this text; alone

At least one of --effective-bits, --max-bytes and --latency. Prints a table and the proof. Exit status: 0, or 2 with one
line on stderr for wrong usage, files or budgets that cannot be met; then nothing is written.
)usage";

namespace {

[[noreturn]] void refuse(std::string const& what) { tools::refuse("allocate", what); }

/// The whole of a text as a number.
template <class Number>
std::optional<Number> number_from(std::string_view text) {
  Number n{};
  auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), n);
  return code == std::errc{} && end == text.data() + text.size() ? std::optional{n} : std::nullopt;
}

/// From 2^least to 2^50.
std::int64_t bytes_from(std::string const& option, std::string const& value, int least, int most) {
  auto const n = number_from<std::int64_t>(value);
  if (!n || *n < std::int64_t{1} << least || *n > std::int64_t{1} << most)
    refuse(option + " '" + value + "' is not a whole number from " + (least == 0 ? "1" : "2^" + std::to_string(least)) +
           " to 2^" + std::to_string(most));
  return *n;
}

std::size_t points_from(std::string const& value) {
  if (value == "all") return std::numeric_limits<std::size_t>::max();
  auto const n = number_from<std::size_t>(value);
  if (!n || *n < 2) refuse("--pareto-points '" + value + "' is neither 'all' nor a whole number of 2 or more");
  return *n;
}

std::pair<double, double> range_from(std::string const& value) {
  std::string_view const text{value};
  std::size_t const colon = std::min(text.find(':'), text.size());
  auto const low = number_from<double>(text.substr(0, colon));
  auto const high = number_from<double>(text.substr(std::min(colon + 1, text.size())));
  if (!low || !high || !(*low >= 0) || !(*low <= *high) || !std::isfinite(*high))
    refuse("--pareto-range '" + value + "' is not two numbers L:H of bits, L at least 0 and at most H");
  return {*low, *high};
}

double seconds_from(std::string const& value) {
  auto const n = number_from<double>(value);
  if (!n || !(*n > 0) || *n > 1e9) refuse("--seconds '" + value + "' is not a number above 0 and at most 1e9");
  return *n;
}

tools::known_options options_of(options& o) {
  using tools::setter;
  auto const text = [](std::string& target) { return setter{[&](auto const&, auto const& v) { target = v; }}; };
  auto const bits = [&o](auto const&, std::string const& v) {
    try {
      o.target.emplace(std::string_view{v});
    } catch (mixbit::error const& e) {
      refuse("--effective-bits: " + std::string{e.message()});
    }
  };
  return {{{"--stats", text(o.stats)},     {"--effective-bits", bits},
           {"--max-bytes", [&o](auto const& n, auto const& v) { o.max_bytes = bytes_from(n, v, 0, 50); }},
           {"--memory", [&o](auto const& n, auto const& v) { o.limit.memory = bytes_from(n, v, 20, 37); }},
           {"--latency", text(o.latency)}, {"--pareto", text(o.pareto)},
           {"--pareto-points", [&o](auto const&, std::string const& v) { o.pareto_points = points_from(v); }},
           {"--pareto-range", [&o](auto const&, std::string const& v) { o.pareto_range = range_from(v); }},
           {"--seconds", [&o](auto const&, std::string const& v) { o.limit.seconds = seconds_from(v); }},
           {"--out", text(o.out)}},
          {{"--minimax", &o.minimax}, {"--raw-scores", &o.raw_scores}}};
}

struct named_file {
  char const* option;
  std::string const& path;
};

/// However the two are spelled, and through links.
void refuse_same_file(named_file const& a, named_file const& b) {
  if (a.path.empty() || b.path.empty()) return;
  auto const place = [](std::string const& path) {
    std::error_code none;
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path, none), none);
  };
  if (place(a.path) == place(b.path))
    refuse(std::string{a.option} + " and " + b.option + " name the same file '" + b.path + "'");
}

void check_together(options const& o) {
  if (o.stats.empty()) refuse("--stats is missing");
  if (!o.target && !o.max_bytes && o.latency.empty())
    refuse("there is no budget: give --effective-bits, --max-bytes or --latency");
  if (!o.pareto.empty() && !o.pareto.ends_with(".csv") && !o.pareto.ends_with(".json"))
    refuse("--pareto '" + o.pareto + "' ends in neither .csv nor .json");
  refuse_same_file({"--pareto", o.pareto}, {"--out", o.out});
  for (auto const& written : {named_file{"--pareto", o.pareto}, named_file{"--out", o.out}})
    for (auto const& read : {named_file{"--stats", o.stats}, named_file{"--latency", o.latency}})
      refuse_same_file(read, written);
}

}  // namespace

options parse_options(int count, char const* const* arguments) {
  options o;
  auto const given = tools::read_options("allocate", count, arguments, options_of(o));
  o.help = !given;
  if (o.help) return o;
  for (char const* const option : {"--pareto-points", "--pareto-range"})
    if (given->contains(option) && o.pareto.empty()) refuse(std::string{option} + " needs --pareto");
  check_together(o);
  return o;
}

}  // namespace allocate
