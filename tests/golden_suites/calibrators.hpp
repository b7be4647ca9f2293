// Suite calibrators: histograms of four batches each, bin by bin, and the amax that entropy, percentile and max find.
#pragma once

#include <cmath>
#include <filesystem>

#include "golden_suites/quantizer_case.hpp"
#include "golden_suites/suite.hpp"
#include "mixbit/calib/histogram.hpp"
#include "mixbit/calib/histogram_amax.hpp"
#include "mixbit/reference/scalar.hpp"

namespace golden {

class calibrators_suite {
 public:
  explicit calibrators_suite(std::filesystem::path const& dir)
      : document_(mixbit::read_json_file(dir / "calibrators.json")),
        file_{mixbit::safetensors_file::open(dir / "calibrators.safetensors")} {
    result_.name = "calibrators";
  }

  suite_result run() {
    for (auto const& c : document_.at("cases")) {
      id_ = c.at("id");
      mixbit::streaming_histogram<mixbit::reference::scalar> histogram;
      float largest = 0;
      for (auto const& batch : c.at("batches")) {
        tensor x{file_.at(batch.get<std::string>())};
        histogram.observe(cpu_, scratch_, x.ref(), mixbit::per_tensor(x.g), nullptr);
        cpu_.amax({x.ref(), mixbit::per_tensor(x.g), &largest, nullptr});
      }
      result_.check(largest == c.at("max").get<float>(), id_ + ": another max");
      histogram.for_each(cpu_, [&](std::size_t, mixbit::binned_counts const& h) {
        if (c.contains("histogram")) compare_bins(c, h);
        compare_amax(c, h);
      });
    }
    return result_;
  }

 private:
  using json = mixbit::json_document;

  /// Counts are equal; edges are computed in another order there, and may be a step of float32 away.
  void compare_bins(json const& c, mixbit::binned_counts const& h) {
    tensor counts{file_.at(c.at("histogram").get<std::string>())}, edges{file_.at(c.at("edges").get<std::string>())};
    bool equal = counts.g.size() == static_cast<std::int64_t>(h.counts.size());
    for (std::size_t b = 0; equal && b < h.counts.size(); ++b)
      equal = static_cast<float>(h.counts[b]) == counts.as<float>()[b];
    result_.check(equal, id_ + ": another histogram");
    bool near = edges.g.size() == static_cast<std::int64_t>(h.counts.size()) + 1;
    for (std::size_t b = 0; near && b <= h.counts.size(); ++b) near = is_near(h.edge(b), edges.as<float>()[b]);
    result_.check(near, id_ + ": other edges");
  }

  void compare_amax(json const& c, mixbit::binned_counts const& h) {
    if (c.contains("entropy"))
      check_amax("entropy", h.edge(mixbit::entropy_bin(h.counts, c.at("num_bits"), c.at("unsigned"))),
                 c.at("entropy").get<float>());
    for (auto const& [percent, expected] : c.at("percentile").items())
      check_amax("percentile " + percent, h.edge(mixbit::percentile_bin(h.counts, std::stod(percent))),
                 expected.get<float>());
  }

  void check_amax(std::string const& what, float ours, float expected) {
    result_.check(is_near(ours, expected), mixbit::detail::concat(id_, ": ", what, " is ", ours, ", not ", expected));
  }
  /// Far less than a bin apart: the same bin.
  static bool is_near(float a, float b) { return std::fabs(a - b) <= 2.5e-7f * std::fabs(b); }

  mixbit::reference::scalar cpu_;
  mixbit::arena scratch_;
  json document_;
  mixbit::safetensors_file file_;
  std::string id_;
  suite_result result_;
};

}  // namespace golden

inline suite_result run_calibrators(std::filesystem::path const& dir) { return golden::calibrators_suite{dir}.run(); }
