#include "data.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <numeric>
#include <optional>
#include <string>

#include "mixbit/core/error.hpp"

namespace digits {

namespace {

constexpr std::size_t pixels_per_image = side * side;
constexpr int brightest = 16;

/// One line of the file, and where it is; past the end it is empty.
struct line {
  std::string text, file;
  std::size_t number;

  template <class... Parts>
  [[noreturn]] void refuse(Parts const&... parts) const {
    mixbit::fail(mixbit::error_id::file_format, file, ":", number, ": ", parts...);
  }

  std::vector<std::string_view> fields() const {
    std::vector<std::string_view> all;
    std::string_view rest = text;
    for (std::size_t comma; (comma = rest.find(',')) != rest.npos; rest.remove_prefix(comma + 1))
      all.push_back(rest.substr(0, comma));
    all.push_back(rest);
    return all;
  }

  /// The number in a field: of the label, or of a pixel.
  int number_in(std::string_view field, std::optional<std::size_t> pixel, int largest) const {
    int value = -1;
    auto const [end, code] = std::from_chars(field.data(), field.data() + field.size(), value);
    if (code != std::errc{} || end != field.data() + field.size() || value < 0 || value > largest)
      refuse("column ", pixel ? "p" : "label", pixel ? std::to_string(*pixel) : "", " is '", field,
             "', not a whole number from 0 to ", largest);
    return value;
  }
};

bool next_line(std::istream& in, line& l) {
  ++l.number;
  l.text.clear();
  if (!std::getline(in, l.text)) return false;
  if (!l.text.empty() && l.text.back() == '\r') l.text.pop_back();
  return true;
}

void check_header(line const& l) {
  std::string expected = "label";
  for (std::size_t p = 0; p < pixels_per_image; ++p) expected += ",p" + std::to_string(p);
  if (l.text != expected) l.refuse("the first line must be 'label,p0,..,p", pixels_per_image - 1, "'");
}

}  // namespace

image_set read_digits(std::filesystem::path const& path) {
  std::ifstream in{path};
  if (!in || std::filesystem::is_directory(path))
    mixbit::fail(mixbit::error_id::file_open, path.string(), ": cannot be read");
  line l{{}, path.string(), 0};
  next_line(in, l);
  check_header(l);
  image_set all;
  std::vector<float> values;
  while (next_line(in, l)) {
    auto const fields = l.fields();
    if (fields.size() != pixels_per_image + 1) l.refuse(fields.size(), " columns instead of ", pixels_per_image + 1);
    all.labels.push_back(l.number_in(fields[0], {}, static_cast<int>(classes) - 1));
    for (std::size_t p = 0; p < pixels_per_image; ++p)
      values.push_back(static_cast<float>(l.number_in(fields[p + 1], p, brightest)) / brightest);
  }
  if (in.bad()) mixbit::fail(mixbit::error_id::file_open, path.string(), ": cannot be read");
  if (all.size() == 0) l.refuse("the file ends without an image");
  all.pixels = tensor4::from_shape({all.size(), 1, side, side});
  std::copy(values.begin(), values.end(), all.pixels.data());
  return all;
}

image_set select(image_set const& all, std::span<std::size_t const> indices) {
  image_set some{tensor4::from_shape({indices.size(), 1, side, side}), {}};
  for (std::size_t i = 0; i < indices.size(); ++i) {
    std::copy_n(all.pixels.data() + indices[i] * pixels_per_image, pixels_per_image,
                some.pixels.data() + i * pixels_per_image);
    some.labels.push_back(all.labels[indices[i]]);
  }
  return some;
}

split_set split(image_set const& all) {
  std::vector<std::size_t> training, test;
  for (std::size_t i = 0; i < all.size(); ++i) (i % 5 == 4 ? test : training).push_back(i);
  return {select(all, training), select(all, test)};
}

std::vector<image_set> batches(image_set const& all, std::size_t size, std::size_t most) {
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::vector<image_set> parts;
  for (std::size_t first = 0; first < all.size() && parts.size() < most; first += size)
    parts.push_back(select(all, std::span{order}.subspan(first, std::min(size, all.size() - first))));
  return parts;
}

}  // namespace digits
