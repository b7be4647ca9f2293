// bench_calibrators [--json] [--quick]: what calibration by a histogram costs, one thread.
//
// "search" lines: the amax of one histogram by entropy, mse or percentile. `rough` is the worst that the entropy search
// can meet (no candidate can be left early), `grown` has all the bins that 2048 may become. "observe" lines: one batch
// of 1024 x 1024 float32 shown to a calibrator, after the first, beside the running max of the same tensor. Times are
// medians of 21 runs; --quick takes 5. JSON: one object a line.
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/calib/default_calibrators.hpp"
#include "mixbit/reference/simd.hpp"
#include "timing.hpp"

namespace {

using backend = mixbit::reference::simd;
using counts = std::vector<std::uint64_t>;

struct options {
  bool json = false, quick = false;
  int rounds() const { return quick ? 5 : 21; }
};

double milliseconds(options const& o, std::function<void()> const& run) {
  std::vector<double> all;
  for (int i = 0; i < o.rounds(); ++i) all.push_back(bench::seconds_of(run) * 1e3);
  return bench::median(all);
}

void print(options const& o, std::string const& what, std::string const& data, std::string const& format, double ms,
           double to_max = 0) {
  if (o.json) {
    std::printf("{\"what\": \"%s\", \"data\": \"%s\", \"format\": \"%s\", \"ms\": %.4f", what.c_str(), data.c_str(),
                format.c_str(), ms);
    if (to_max > 0) std::printf(", \"of_max\": %.3f", to_max);
    std::puts("}");
  } else {
    std::printf("%-22s %-20s %-6s %9.4f ms", what.c_str(), data.c_str(), format.c_str(), ms);
    if (to_max > 0) std::printf("  %.2f times the running max", to_max);
    std::puts("");
  }
  std::fflush(stdout);
}

counts histogram(std::string_view kind, std::size_t bins) {
  counts c(bins);
  std::mt19937 random{1};
  std::normal_distribution<double> normal;
  std::exponential_distribution<double> laplace;
  if (kind == "rough" || kind == "grown") {  // jagged within each level, and next to nothing behind the first bins
    for (std::size_t k = 0; k < bins; ++k) c[k] = k < 128 ? random() % 1'000'000 : 1 + random() % 3;
    return c;
  }
  for (int i = 0; i < 1'000'000; ++i) {
    double const x = kind == "gauss" ? std::abs(normal(random)) / 5.2 : laplace(random) / (kind == "sparse" ? 200 : 15);
    ++c[std::min(bins - 1, static_cast<std::size_t>(x * static_cast<double>(bins)))];
  }
  ++c[bins - 1];
  return c;
}

void bench_searches(options const& o) {
  struct target {
    char const* name;
    mixbit::format how;
  };
  backend device;
  mixbit::format int8, int8u, int4, fp8;
  int8u.element = mixbit::integer_element(8, true);
  int4.element = mixbit::integer_element(4);
  fp8.element = mixbit::e4m3_element;
  for (char const* const kind : {"gauss", "laplace", "sparse", "rough", "grown"}) {
    bool const grown = std::string_view{kind} == "grown";
    if (grown && o.quick) continue;
    counts const c = histogram(kind, grown ? 2048 * mixbit::histogram_ranges::most_growth : 2048);
    mixbit::binned_counts const h{c, 1.0f / 512, static_cast<float>(c.size()) / 512};
    auto const time = [&](char const* method, target const& t) {
      mixbit::calibrator_config const config{"histogram", {{"method", method}}};
      float kept = 0;
      mixbit::center_kernel<backend> rounding{device, t.how};
      double const ms = milliseconds(o, [&] { kept += mixbit::histogram_amax(h, config, t.how, rounding); });
      if (!(kept > 0)) throw std::runtime_error{std::string{method} + " found no amax"};
      print(o, std::string{"search "} + method, kind, t.name, ms);
    };
    for (target const& t : {target{"int8", int8}, target{"uint8", int8u}, target{"int4", int4}}) time("entropy", t);
    time("percentile", {"int8", int8});
    if (grown) continue;
    for (target const& t : {target{"int8", int8}, target{"fp8", fp8}}) time("mse", t);
  }
}

void bench_observing(options const& o) {
  mixbit::quantizer_attribute_config nvfp4{.num_bits = {2, 1}};
  nvfp4.block_sizes = mixbit::block_config{{{-1, 16}}, mixbit::quantizer_type::dynamic_type, mixbit::bit_spec{4, 3}};
  mixbit::quantizer_attribute_config int8, rows{.axis = 0};
  int8.calibrator = rows.calibrator = "histogram";
  nvfp4.calibrator = "nvfp4_act_headroom";
  backend device;
  mixbit::arena scratch;
  std::vector<float> x(1024 * 1024);
  std::mt19937 random{1};
  std::normal_distribution<float> normal;
  for (float& v : x) v = normal(random);
  auto const view = mixbit::dense_view(x.data(), {1024, 1024});
  struct observed {
    char const* data;
    mixbit::quantizer_attribute_config const* attributes;
  };
  for (observed const& q : {observed{"tensor", &int8}, observed{"1024 channels", &rows}, observed{"tensor", &nvfp4}}) {
    std::string const name = q.data;
    auto const numerics = mixbit::interpret(*q.attributes, {}, name);
    auto const made = mixbit::calibrator_registry<backend>{}.make({q.attributes->calibrator, numerics, name});
    auto const groups = numerics.groups_from_data ? mixbit::per_tensor(view) : numerics.groups_of(view, name);
    std::vector<float> amax(static_cast<std::size_t>(groups.group_count()));
    mixbit::data_flags flags;
    made->observe(device, scratch, view, groups, &flags);
    double const ms = milliseconds(o, [&] { made->observe(device, scratch, view, groups, &flags); });
    double const max = milliseconds(o, [&] { device.amax({view, groups, amax.data(), &flags}); });
    print(o, "observe " + q.attributes->calibrator.name(), name, numerics.groups_from_data ? "nvfp4" : "int8", ms,
          ms / max);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  options o;
  for (int i = 1; i < argc; ++i) {
    std::string_view const option{argv[i]};
    if (option == "--help" && argc == 2) {
      std::puts("bench_calibrators [--json] [--quick]\n  --json   one JSON object a line\n  --quick  fewer runs");
      return 0;
    }
    bool* const flag = option == "--json" ? &o.json : option == "--quick" ? &o.quick : nullptr;
    if (flag == nullptr || *flag) {
      std::fprintf(stderr, "bench_calibrators: '%s' is %s; bench_calibrators [--json] [--quick]\n", argv[i],
                   flag == nullptr ? "an unknown option" : "given twice");
      return 2;
    }
    *flag = true;
  }
  bench_searches(o);
  bench_observing(o);
  return 0;
} catch (std::exception const& problem) {
  std::fprintf(stderr, "bench_calibrators: %s\n", problem.what());
  return 2;
}
