// A checkpoint's matrices as a model that can be walked, though nothing runs: what a config says of each is resolved as
// for any host.
#pragma once

#include <deque>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "mixbit/io/hf_source.hpp"
#include "mixbit/model/model.hpp"
#include "mixbit/model/module.hpp"
#include "mixbit/reference/scalar.hpp"

namespace quantize_checkpoint {

using backend = mixbit::reference::scalar;

class stored_model {
 public:
  /// `heads`: layers that may be quantized though they are output heads.
  explicit stored_model(mixbit::hf_source const& source, std::set<std::string> const& heads = {});

  /// The modules with a matrix that may be quantized, by name. Their weights lie in a read-only memory map: nobody may
  /// write to them.
  template <class Visit>
  void walk(Visit&& visit) {
    for (auto& m : matrices_) visit(mixbit::module_ref<backend>{m.name, "nn.Linear", &m.slots, m.weight,
                                                                mixbit::layouts::linear});
  }

  /// Why a tensor is not quantized whatever the config says; empty for those of the walk.
  std::string const& why_kept(std::string const& tensor) const;

 private:
  struct matrix {
    std::string name;
    mixbit::tensor_ref weight;
    mixbit::quantizer_slots<backend> slots{};
  };

  std::deque<matrix> matrices_;  // slots do not move
  std::unordered_map<std::string, std::string> kept_;
};

}  // namespace quantize_checkpoint
