#include "gguf_output.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <utility>

#include "mixbit/io/gguf_blocks.hpp"

namespace quantize_checkpoint {

using mixbit::dtype;
using mixbit::gguf_item;
namespace blocks = mixbit::detail::gguf;

namespace {

constexpr char const* file_name = "model.gguf";

mixbit::gguf_outline outline_of(mixbit::hf_source const& source, std::vector<layer> const& layers) {
  auto family = mixbit::gguf_family_of(source.config());
  if (!family)
    mixbit::fail(mixbit::error_id::file_content, source.tensors().label(), ": config.json is no LlamaForCausalLM's, ",
                 "the one architecture whose names in GGUF are known");
  mixbit::gguf_outline outline{source, *std::move(family)};
  for (auto const& l : layers) outline.add_quantized(l.name + ".weight", l.weight, *l.how->gguf);
  outline.take_the_rest();
  return outline;
}

/// Values in another type; bytes of files need not be aligned.
template <class To, class From>
void convert(std::byte const* from, std::byte* to, std::int64_t count) {
  for (std::int64_t k = 0; k < count; ++k) {
    From value;
    std::memcpy(&value, from + k * static_cast<std::int64_t>(sizeof value), sizeof value);
    To const made = mixbit::from_float<To>(mixbit::to_float(value));
    std::memcpy(to + k * static_cast<std::int64_t>(sizeof made), &made, sizeof made);
  }
}

/// What GGUF widens to float32: a vector's elements.
void widen(dtype type, std::byte const* from, std::byte* to, std::int64_t count) {
  mixbit::visit_compute(type, [&]<class From>(From) { convert<float, From>(from, to, count); });
}

/// Blocks whose scales are float16: throws `format_amax` for one that is not.
void require_half(layer const& l, encoded_rows const& part, std::string const& file) {
  for (std::size_t b = 0; b < part.scales.size(); ++b)
    if (!mixbit::is_half(part.scales[b]))
      mixbit::fail(mixbit::error_id::format_amax, file, ": tensor ", mixbit::in_quotes(l.name + ".weight"),
                   ": the scale of block ", part.first * (l.weight.shape[1] / 32) + static_cast<std::int64_t>(b),
                   " is ", part.scales[b], ", which float16 does not hold, and ", l.how->form(), " has float16 scales");
}

}  // namespace

void require_gguf_source(mixbit::hf_source const& source) { (void)outline_of(source, {}); }

gguf_output::gguf_output(task const& work)
    : task_{work},
      outline_{outline_of(work.source, work.made.layers)},
      metadata_{outline_.metadata()},
      layout_{mixbit::gguf_layout_of(std::filesystem::path{work.wanted.out} / file_name, metadata_,
                                     outline_.tensors())} {
  for (std::size_t i = 0; i < layout_.offsets.size(); ++i)
    offsets_.emplace(outline_.tensors()[i].name, layout_.offsets[i]);
}

std::vector<partial_file> gguf_output::files() const {
  return {{file_name, layout_.size, [this](partial_file::put_text const& put) { put(layout_.head); }}};
}

becoming gguf_output::of(std::string_view tensor) const {
  auto const* const i = outline_.find(tensor);
  if (i == nullptr) return {"left out: llama.cpp computes it", 0};
  std::string const type{mixbit::gguf_info(i->type).name};
  auto const* const l = task_.layer_of(tensor);
  if (l == nullptr) return {"unquantized as " + type + ": " + task_.why_kept(tensor), i->tensor().bytes()};
  auto const scale = i->scale();
  return {l->how->label + " as " + type, i->tensor().bytes() + (scale ? scale->bytes() : 0)};
}

void gguf_output::write(partial_output& files, std::string_view tensor, shown const& show) {
  auto const* const i = outline_.find(tensor);
  if (i == nullptr) return;
  if (auto const* const l = task_.layer_of(tensor)) write_blocks(files, *i, *l, show);
  else write_values(files, *i);
}

void gguf_output::write_others(mixbit::staged_output& out) const {
  if (!task_.made.plan) out.remove_stale("plan.json");
}

void gguf_output::write_blocks(partial_output& files, gguf_item const& i, layer const& l, shown const& show) const {
  auto rows = task_.rows_of(l);
  if (auto const scale = i.scale()) {
    float const value = rows.tensor_scale();
    files.write(0, offsets_.at(scale->name), std::as_bytes(std::span{&value, 1}));
  }
  std::int64_t const all = i.shape.shape[0], row = blocks::row_bytes(i.type, i.shape.shape[1]);
  std::int64_t const read = l.weight.bytes() / all;
  std::int64_t const at = offsets_.at(i.place.name);
  rows.encode([&](encoded_rows const& part) {
    require_half(l, part, task_.source.tensors().label_of(l.name + ".weight"));
    mixbit::geometry shape = i.shape;
    shape.shape[0] = part.rows;
    mixbit::detail::code_view const codes{l.element(), shape, part.codes};
    auto const bytes = mixbit::has_half_scales(i.type)
                           ? blocks::blocks_of_rows(i.type, codes, part.scales, 0, task_.threads)
                           : blocks::blocks_of_rows(i.type, codes, part.block_scales, 0, task_.threads);
    std::span const made{bytes};
    if (i.place.heads == 0) files.write(0, at + part.first * row, made);
    else
      for (std::int64_t r = 0; r < part.rows; ++r)
        files.write(0, at + blocks::place_of_row(part.first + r, all, i.place.heads) * row,
                    made.subspan(static_cast<std::size_t>(r * row), static_cast<std::size_t>(row)));
    show(part.first * read);
  });
}

/// As they are, rows rearranged, vectors as float32: some rows at a time, in the file's order.
void gguf_output::write_values(partial_output& files, gguf_item const& i) const {
  auto const from = task_.source.tensors().bytes(i.from);
  auto const type = task_.source.tensors().at(i.from).type;
  bool const wider = i.type == mixbit::gguf_type::f32 && type != dtype::f32;
  std::int64_t const at = offsets_.at(i.place.name);
  if (!wider && i.place.heads == 0) return files.write(0, at, from);
  std::int64_t const all = i.shape.shape[0], width = i.shape.size() / all;
  auto const read = width * static_cast<std::int64_t>(mixbit::size_of(type));
  std::int64_t const row = wider ? width * static_cast<std::int64_t>(sizeof(float)) : read;
  std::int64_t const chunk = std::clamp<std::int64_t>((std::int64_t{1} << 20) / row, 1, all);
  std::vector<std::byte> bytes(static_cast<std::size_t>(chunk * row));
  for (std::int64_t first = 0; first < all; first += chunk) {
    std::int64_t const end = std::min(first + chunk, all);
    for (std::int64_t r = first; r < end; ++r) {
      std::byte const* const there = from.data() + blocks::permuted_row(r, all, i.place.heads) * read;
      std::byte* const here = bytes.data() + (r - first) * row;
      if (wider) widen(type, there, here, width);
      else std::memcpy(here, there, static_cast<std::size_t>(read));
    }
    files.write(0, at + first * row, std::span{bytes}.first(static_cast<std::size_t>((end - first) * row)));
  }
}

}  // namespace quantize_checkpoint
