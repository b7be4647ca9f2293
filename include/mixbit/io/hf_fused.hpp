// Layers that loaders run as one kernel and that have scales of their own: loaders take the largest of the group's for
// all of it, and what they compute is then not what the model simulates.
#pragma once

#include <algorithm>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/io/hf_encoding.hpp"
#include "mixbit/io/hf_format.hpp"
#include "mixbit/io/hf_loader_notes.hpp"
#include "mixbit/model/shared_state.hpp"

namespace mixbit::detail::hf {

/// Throws `format_value` for fused layers that differ in their pre_quant_scale: loaders scale the input of all of them
/// by one, so that what they compute would be wrong, not a little off. Groups of several formats are not fused.
template <backend B>
void require_one_pre_quant_scale(model<B>& m, std::vector<hf_layer> const& layers) {
  std::vector<layer_group> groups;
  for (auto const& members : fused_groups(layers)) {
    layer_group group;
    bool scaled = false;
    for (std::size_t const i : members) {
      scaled = scaled || layers[i].scaled;
      group.push_back(layers[i].name);
    }
    if (scaled) groups.push_back(std::move(group));
  }
  for (auto const& group : unshared_groups(m, groups, {false, false, true}))
    for (auto const& d : group.differences)
      if (!d.is_format())
        fail(error_id::format_value, d.text(),
             "; loaders that fuse them take one for both, and share_state makes it one");
}

/// A line for each layer whose tensor-level scale differs from its group's first. `taken`: what loaders make of that.
template <backend B>
void note_unshared(model<B>& m, std::vector<layer_group> const& groups, std::vector<std::string>& notes,
                   std::string_view taken = "take the larger scale for both") {
  for (auto const& group : unshared_groups(m, groups, {true, true, false}))
    for (auto const& d : group.differences)
      notes.push_back(concat(d.text(), "; loaders that fuse them ", taken,
                             d.is_format() ? ", and share_state needs one format to make it one"
                                           : ", share_state makes it one"));
}

/// The same of all fused layers. Groups of several formats have their own line (note_fused); single 2-D blocks theirs
/// (hf_export_options::share_fused_blocks).
template <backend B>
void note_unshared(model<B>& m, std::vector<hf_layer> const& layers, std::vector<std::string>& notes) {
  std::vector<layer_group> groups;
  for (auto const& members : fused_groups(layers)) {
    layer_group group;
    auto const& first = layers[members.front()].format;
    bool const has_whole = first.has_input_scale() || first.has_tensor_scale();
    for (std::size_t const i : members)
      if (layers[i].format == first && has_whole) group.push_back(layers[i].name);
    if (group.size() == members.size()) groups.push_back(std::move(group));
  }
  note_unshared(m, groups, notes);
}

/// Fused layers that are a single 2-D block each: their amaxes become the largest where `share` says so, else a line
/// says that they are not (hf_export_options::share_fused_blocks).
template <backend B>
void share_single_blocks(std::vector<hf_layer> const& layers, std::deque<hf_encoding<B>>& encodings, bool share,
                         std::vector<std::string>& notes) {
  for (auto const& group : fused_groups(layers)) {
    float largest = 0;
    bool const single = std::all_of(group.begin(), group.end(), [&](std::size_t i) {
      auto const& amax = encodings[i].amax();
      largest = std::max(largest, amax.empty() ? 0.0f : amax.front());
      return layers[i].format.algorithm == hf_algorithm::fp8_2d_blocks && amax.size() == 1;
    });
    for (std::size_t const i : group) {
      if (!single || encodings[i].amax().front() == largest) continue;
      notes.push_back(layers[i].name +
                      (share ? ": its one block takes the scale of the layers that it is fused with"
                             : ": its one block keeps its own scale; a loader that fuses it needs share_fused_blocks"));
      if (share) encodings[i].take_amax(largest);
    }
  }
}

}  // namespace mixbit::detail::hf
