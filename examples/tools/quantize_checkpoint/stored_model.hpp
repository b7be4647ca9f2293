// A checkpoint's matrices as a model that can be walked, though nothing runs: what a config says of each is resolved as
// for any host. Of a matrix no more is kept than where its name is: there may be tens of thousands.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conv1d.hpp"
#include "mixbit/io/hf_source.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/model/module.hpp"
#include "mixbit/reference/scalar.hpp"

namespace quantize_checkpoint {

using backend = mixbit::reference::scalar;
using stored_layer = mixbit::module_ref<backend>;

class stored_model {
 public:
  /// `heads`: layers that may be quantized though they are output heads. The source has to stay.
  explicit stored_model(mixbit::hf_source const& source, std::set<std::string> heads = {});

  /// The modules with a matrix that may be quantized, by name; without slots. Their weights lie in a read-only memory
  /// map: nobody may write to them.
  std::size_t size() const { return names_.size(); }
  stored_layer at(std::size_t i) const;
  /// Nothing where there is none of this name.
  std::optional<stored_layer> find(std::string_view name) const;

  /// The first matrix that is stored [in, out], and is kept for that; empty: none.
  std::string first_transposed() const;

  /// All of them, with slots.
  template <class Visit>
  void walk(Visit&& visit) {
    slots_.resize(names_.size());
    for (std::size_t i = 0; i < names_.size(); ++i) {
      auto m = at(i);
      m.slots = &slots_[i];
      visit(std::move(m));
    }
  }

  void forget_slots() { slots_.clear(); }

  /// Why a tensor is not quantized whatever the config says; empty for those of the modules.
  std::string why_kept(std::string_view tensor) const;

 private:
  mixbit::hf_source const& source_;
  std::set<std::string> heads_;
  conv1d_layers conv1d_;
  std::vector<std::string_view> names_;  ///< of modules, sorted
  std::deque<mixbit::quantizer_slots<backend>> slots_;
};

}  // namespace quantize_checkpoint
