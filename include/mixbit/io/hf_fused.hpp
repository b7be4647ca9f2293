// Layers that loaders run as one kernel and that have scales of their own: loaders take the largest of the group's for
// all of it, and what they compute is then not what the model simulates.
#pragma once

#include <string>
#include <vector>

#include "mixbit/io/hf_format.hpp"
#include "mixbit/model/shared_state.hpp"

namespace mixbit::detail::hf {

/// A line for each layer whose tensor-level scale differs from its group's first. Groups of several formats have their
/// own (note_fused); single 2-D blocks theirs (hf_export_options::share_fused_blocks).
template <backend B>
void note_unshared(model<B>& m, std::vector<hf_layer> const& layers, std::vector<std::string>& notes) {
  std::vector<layer_group> groups;
  for (auto const& members : fused_groups(layers)) {
    layer_group group;
    for (std::size_t const i : members)
      if (layers[i].format == layers[members.front()].format && layers[i].format.has_input_scale())
        group.push_back(layers[i].name);
    if (group.size() == members.size()) groups.push_back(std::move(group));
  }
  for (auto const& group : unshared_groups(m, groups))
    for (auto const& d : group.differences)
      notes.push_back(d.text() + "; loaders that fuse them take the larger scale for both, share_state makes it one");
}

}  // namespace mixbit::detail::hf
