// data/byte-lm with the windows of the lm suites: what both of them run.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "byte_lm/checkpoint.hpp"
#include "mixbit/mixbit.hpp"
#include "support/golden_file.hpp"

namespace golden {

/// [steps, windows, bytes] or [windows, bytes] of uint8 as steps of windows.
inline std::vector<byte_lm::byte_windows> windows_of(mixbit::test::golden_file const& file, std::string const& name) {
  auto const t = file.tensor(name);
  if (t.type != mixbit::dtype::u8 || t.rank < 2 || t.rank > 3)
    mixbit::fail(mixbit::error_id::file_content, file.tensors().label(), ": tensor '", name, "' is ", to_string(t),
                 " of ", name_of(t.type), ", not windows of uint8");
  bool const stepped = t.rank == 3;
  std::int64_t const steps = stepped ? t.shape[0] : 1, count = t.shape[stepped], length = t.shape[stepped + 1];
  std::vector<byte_lm::byte_windows> all;
  for (std::int64_t s = 0; s < steps; ++s) {
    auto const* const first = t.as<std::uint8_t>() + s * count * length;
    all.push_back({count, length, {first, first + count * length}});
  }
  return all;
}

struct lm_model {
  using backend = byte_lm::backend;

  mixbit::thread_pool pool{2};
  mixbit::test::golden_file file;
  byte_lm::language_model host;
  std::vector<byte_lm::byte_windows> calibration, score;
  byte_lm::byte_windows validation;

  lm_model(std::filesystem::path const& dir, std::filesystem::path const& data)
      : file{dir, "lm"},
        host{byte_lm::load_model((data / "byte-lm").string(), pool)},
        calibration{windows_of(file, "calibration")},
        score{windows_of(file, "score")},
        validation{windows_of(file, "validation").at(0)} {}

  mixbit::model<backend> quantized(mixbit::policy numerics) {
    return mixbit::model<backend>{host, {.device = backend{pool}, .numerics = numerics}};
  }
  double validation_loss() { return byte_lm::evaluate(host, validation); }
};

}  // namespace golden
