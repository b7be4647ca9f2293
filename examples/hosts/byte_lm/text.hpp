// The text that byte-lm reads, and the windows of it that calibrate, score and validate.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "mixbit/core/error.hpp"
#include "mixbit/io/json.hpp"
#include "tokens.hpp"

namespace byte_lm {

using mixbit::json_document;

/// A file's bytes. Throws `file_open`, also for what is no regular file: a device may have no end.
inline std::string read_text(std::filesystem::path const& path) {
  std::error_code failure;
  if (std::filesystem::exists(path, failure) && !std::filesystem::is_regular_file(path, failure))
    mixbit::fail(mixbit::error_id::file_open, path.string(), ": is not a regular file");
  std::ifstream in{path, std::ios::binary};
  if (!in) mixbit::fail(mixbit::error_id::file_open, path.string(), ": cannot be opened");
  return {std::istreambuf_iterator<char>{in}, {}};
}

/// The licences in Debian's base-files, on every Debian system: the files that are no links, in the order of their
/// bytes, with a newline between two. It is the text that byte-lm was trained on.
inline std::string debian_licences(std::filesystem::path const& folder = "/usr/share/common-licenses") {
  std::error_code failure;
  std::vector<std::string> files;
  for (auto const& entry : std::filesystem::directory_iterator{folder, failure})
    if (entry.is_regular_file() && !entry.is_symlink()) files.push_back(entry.path().string());
  if (failure || files.empty())
    mixbit::fail(mixbit::error_id::file_open, folder.string(), ": holds no licences; name a text with --text");
  std::sort(files.begin(), files.end());
  std::string text;
  for (auto const& file : files) {
    if (file != files.front()) text += '\n';
    text += read_text(file);
  }
  return text;
}

/// Byte offsets of windows in a text: one inner list a step; validation is one list.
struct window_plan {
  std::int64_t window = 0;  ///< bytes of a window: the tokens a model reads, and one more to predict
  std::vector<std::vector<std::int64_t>> calibration, score;
  std::vector<std::int64_t> validation;
};

namespace detail {

/// A list of offsets, each with a whole window behind it in the text.
inline std::vector<std::int64_t> read_offsets(json_document const& list, std::string const& where,
                                              std::int64_t window, std::int64_t text_size) {
  if (!list.is_array() || list.empty())
    mixbit::fail(mixbit::error_id::file_content, where, " is not a list of byte offsets");
  std::vector<std::int64_t> offsets;
  for (auto const& item : list) {
    if (!item.is_number_integer())
      mixbit::fail(mixbit::error_id::file_content, where, " holds ", item.dump(), ", not a byte offset");
    auto const offset = item.get<std::int64_t>();  // negative too where the number is beyond int64's
    if (offset < 0 || offset > text_size - window)
      mixbit::fail(mixbit::error_id::file_content, where, ": the window of ", window, " bytes at ", item.dump(),
                   " is not within the text of ", text_size, " bytes");
    offsets.push_back(offset);
  }
  return offsets;
}

inline json_document const& window_field(json_document const& object, std::string const& path, char const* key) {
  if (!object.is_object() || !object.contains(key))
    mixbit::fail(mixbit::error_id::file_content, path, ": field '", key, "' is missing");
  return object[key];
}

inline std::vector<std::vector<std::int64_t>> read_steps(json_document const& object, std::string const& path,
                                                         char const* key, std::int64_t window, std::int64_t text_size) {
  auto const& steps = window_field(object, path, key);
  std::string const where = path + ": field '" + key + "'";
  if (!steps.is_array() || steps.empty())
    mixbit::fail(mixbit::error_id::file_content, where, " is not a list of steps, each a list of byte offsets");
  std::vector<std::vector<std::int64_t>> result;
  for (auto const& step : steps)
    result.push_back(read_offsets(step, where + " step " + std::to_string(result.size()), window, text_size));
  return result;
}

}  // namespace detail

/// Reads the keys window, calibration_windows, score_windows and validation_windows; other keys are left alone.
/// Throws `file_open`, `file_format` or `file_content`.
inline window_plan read_windows(std::string const& path, std::int64_t text_size) {
  auto const object = mixbit::read_json_file(path);
  auto const& window = detail::window_field(object, path, "window");
  if (!window.is_number_integer() || window.get<std::int64_t>() < 2)
    mixbit::fail(mixbit::error_id::file_content, path, ": field 'window' is ", window.dump(),
                 ", not a number of bytes from 2 on");
  window_plan plan;
  plan.window = window.get<std::int64_t>();
  plan.calibration = detail::read_steps(object, path, "calibration_windows", plan.window, text_size);
  plan.score = detail::read_steps(object, path, "score_windows", plan.window, text_size);
  plan.validation = detail::read_offsets(detail::window_field(object, path, "validation_windows"),
                                         path + ": field 'validation_windows'", plan.window, text_size);
  return plan;
}

/// Tokens that a window taken evenly has at most: attention's memory grows with the square, and a config may promise
/// any context.
inline constexpr std::int64_t longest_even_window = 512;

/// 256 windows evenly over a text: of each four in a row, two calibrate (16 steps of 8), one is scored (8 steps of 8)
/// and one validates (64). They are apart from one another where the text has 256 windows or more.
/// Throws `file_content` for a text shorter than one window.
inline window_plan even_windows(std::int64_t text_size, std::int64_t window) {
  if (text_size < window)
    mixbit::fail(mixbit::error_id::file_content, "the text has ", text_size, " bytes, less than a window of ", window);
  constexpr std::int64_t count = 256, a_step = 8;
  window_plan plan{window, {}, {}, {}};
  auto const add = [](auto& steps, std::int64_t offset) {
    if (steps.empty() || steps.back().size() == a_step) steps.emplace_back();
    steps.back().push_back(offset);
  };
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t const offset = (text_size - window) * i / (count - 1);
    if (i % 4 < 2) add(plan.calibration, offset);
    if (i % 4 == 2) add(plan.score, offset);
    if (i % 4 == 3) plan.validation.push_back(offset);
  }
  return plan;
}

/// The bytes of some windows. Offsets were checked when the plan was made.
inline byte_windows cut_windows(std::string const& text, std::vector<std::int64_t> const& offsets,
                                std::int64_t window) {
  byte_windows result{static_cast<std::int64_t>(offsets.size()), window, {}};
  result.bytes.reserve(offsets.size() * static_cast<std::size_t>(window));
  for (std::int64_t const offset : offsets)
    result.bytes.insert(result.bytes.end(), text.begin() + offset, text.begin() + offset + window);
  return result;
}

}  // namespace byte_lm
