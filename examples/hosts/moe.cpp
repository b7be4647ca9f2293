// A mixture of experts: a router sends each token to two of six experts, so calibration reaches them unevenly, and one
// of them not at all. The library counts the tokens of each layer and completes who saw too few from the others.
//
//   moe        prints the counts, what is completed, and how far the quantized outputs are from the unquantized
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "mixbit/autoquant/experts.hpp"
#include "mixbit/config/presets.hpp"
#include "mixbit/model/quantize.hpp"
#include "moe/mixture.hpp"

namespace {

using namespace moe;

float relative_error(matrix const& y, matrix const& exact) { return (y - exact).norm() / exact.norm(); }

/// The counts of a calibration, and what the experts with fewer than `least` tokens got from their siblings.
void report(mixbit::token_counts const& counts, std::vector<mixbit::completed_quantizer> const& completed) {
  std::puts("tokens of the calibration:");
  for (auto const& l : counts.layers)
    std::printf("  %-34s %4llu\n", l.layer.c_str(), static_cast<unsigned long long>(l.tokens));
  std::puts("completed from their siblings:");
  for (auto const& c : completed)
    std::printf("  %-50s after %llu token(s), by %zu\n", c.name.c_str(), static_cast<unsigned long long>(c.tokens),
                c.siblings);
}

int run() {
  random_source random;
  mixture net{random};
  matrix const calibration = tokens_with(random, 96, -1.0f), later = tokens_with(random, 64, 1.0f);
  matrix const exact = net.forward(calibration), exact_later = net.forward(later);

  mixbit::model_options<backend> options;
  options.unseen = mixbit::unseen_quantizers::take_from(mixbit::expert_siblings());  // without it: an error
  mixbit::model<backend> m{net, options};
  auto const result = quantize(m, mixbit::preset("INT8_DEFAULT_CFG"), [&] { net.forward(calibration); });
  for (auto const& note : result.notes)
    if (note.find("saw no data") != std::string::npos) std::printf("note: %s\n", note.c_str());

  std::uint64_t const least = 32;
  auto const counts = calibration_tokens(m);
  auto const completed = complete_experts(m, {.least_tokens = least});
  report(counts, completed);

  float const error = relative_error(net.forward(calibration), exact);
  float const error_later = relative_error(net.forward(later), exact_later);
  std::printf("relative error: %.4f on the calibration's tokens, %.4f on tokens for expert %zu\n", error, error_later,
              shunned);
  bool const as_told = counts.below(1).size() == 2 && completed.size() == counts.below(least).size();
  return as_told && error < 0.05f && error_later < 0.05f ? 0 : 1;  // NaN is not below either
}

}  // namespace

int main() {
  try {
    return run();
  } catch (mixbit::error const& e) {
    std::fprintf(stderr, "moe: %s\n", e.what());
    return 1;
  }
}
