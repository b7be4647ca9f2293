// Handwritten digits: 8×8 pixels of 0 to 16 with a label of 0 to 9, from a CSV file (UCI's optical recognition set).
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "tensors.hpp"

namespace digits {

inline constexpr std::size_t side = 8, classes = 10;

struct image_set {
  tensor4 pixels;           ///< [images, 1, 8, 8], scaled to 0 .. 1
  std::vector<int> labels;  ///< one an image

  std::size_t size() const { return labels.size(); }
};

/// Reads `label,p0,..,p63` and a line an image. Throws mixbit::error (file_open, file_format) naming file and line.
image_set read_digits(std::filesystem::path const& path);

/// The images of these indices, in this order.
image_set select(image_set const& all, std::span<std::size_t const> indices);

struct split_set {
  image_set training, test;
};

/// Every fifth image is for testing: the file is ordered by writers, so each part has some of each.
split_set split(image_set const& all);

/// Images in fixed batches, the last one perhaps smaller; at most `most` batches.
std::vector<image_set> batches(image_set const& all, std::size_t size, std::size_t most);

}  // namespace digits
