#include "memory_need.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "mixbit/core/error.hpp"
#include "mixbit/io/mapped_file.hpp"
#include "mixbit/io/safetensors.hpp"

namespace quantize_checkpoint {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t mib = std::int64_t{1} << 20;
/// The program, its threads and what they encode at a time: this much for any checkpoint, or so much beside its names.
constexpr std::int64_t usual = 48 * mib, beside_names = 12 * mib, least_for_weights = mib;

/// How many tensors there are, and how long the text is that describes them.
struct described {
  std::int64_t tensors = 0, text = 0;

  void add(mixbit::mapped_file const& file) {
    std::uint64_t length = 0;
    if (file.size() < sizeof length) return;
    std::memcpy(&length, file.bytes().data(), sizeof length);
    auto const head = file.text().substr(sizeof length, std::min(length, mixbit::max_safetensors_header));
    text += static_cast<std::int64_t>(head.size());
    constexpr std::string_view once = "\"data_offsets\"";
    for (auto at = head.find(once); at != head.npos; at = head.find(once, at + once.size())) ++tensors;
  }
};

std::int64_t size_of_file(fs::path const& path) {
  std::error_code none;
  auto const size = fs::file_size(path, none);
  return none ? 0 : static_cast<std::int64_t>(size);
}

/// What cannot be opened is the reader's to say.
described described_in(fs::path const& folder) {
  described all;
  std::error_code none;
  if (auto const single = folder / "model.safetensors"; fs::is_regular_file(single, none)) {
    all.add(mixbit::mapped_file{single});
    return all;
  }
  auto const path = folder / "model.safetensors.index.json";
  all.text = size_of_file(path);
  if (all.text == 0) return all;
  mixbit::mapped_file const index{path};
  for (fs::directory_iterator it{folder, none}; !none && it != fs::directory_iterator{}; it.increment(none)) {
    std::string const name = it->path().filename().string();
    std::error_code unknown;
    if (name.ends_with(".safetensors") && index.text().find('"' + name + '"') != std::string_view::npos &&
        it->is_regular_file(unknown))
      all.add(mixbit::mapped_file{it->path()});
  }
  return all;
}

/// Measured (docs/quantize_checkpoint.md), and a tenth or more above it.
std::int64_t bytes_of_names(options const& o, described const& d) {
  auto const bytes = [&](std::int64_t a_tensor, std::int64_t a_byte_of_text) {
    return a_tensor * d.tensors + a_byte_of_text * d.text;
  };
  auto const one_format = bytes(900, 8);
  if (o.target) return bytes(6600, 20) + 2 * size_of_file(o.activations);
  if (!o.plan.empty()) return std::max(one_format + bytes(1300, 4), bytes(600, 2) + 8 * size_of_file(o.plan));
  return o.to == "gguf" ? bytes(1100, 10) : one_format;
}

}  // namespace

std::int64_t memory_for_weights(options const& o) {
  auto const all = described_in(o.model);
  auto const names = bytes_of_names(o, all), taken = std::max(usual, beside_names + names);
  if (o.memory > taken + least_for_weights) return o.memory - taken;
  bool const many = taken > usual;
  mixbit::fail(mixbit::error_id::usage, "--memory ", o.memory, ": the program itself takes up to ",
               many ? beside_names : usual, " bytes",
               many ? mixbit::detail::concat(", and what it has to know of ", all.tensors, " tensors up to ", names)
                    : std::string{},
               "; at least ", (taken + least_for_weights) / mib + 1, "M are needed");
}

}  // namespace quantize_checkpoint
