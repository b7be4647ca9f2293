// What a run works on: the checkpoint that is read, what becomes of its matrices, and the order of the work.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "assignment.hpp"
#include "mixbit/core/thread_pool.hpp"
#include "mixbit/io/hf_source.hpp"
#include "options.hpp"
#include "stored_model.hpp"
#include "weight_rows.hpp"

namespace quantize_checkpoint {

/// Does not move: its parts hold views of one another.
struct task {
  /// Throws what is wrong with the options, the files and the configs.
  explicit task(options const& o);
  task(task const&) = delete;
  task& operator=(task const&) = delete;

  /// What a tensor of the source is quantized as; null: it stays.
  layer const* layer_of(std::string_view tensor) const;
  /// Why it stays.
  std::string why_kept(std::string_view tensor) const;
  weight_rows rows_of(layer const& l) const {
    return {on, l, source.tensors().label_of(std::string{l.name} + ".weight"), wanted.memory};
  }

  options wanted;  ///< `memory`: what is left of it for weights
  mixbit::hf_source source;
  stored_model stored;
  mixbit::thread_pool pool;
  mixbit::executor_ref threads;  ///< of the pool
  device on;
  assignment made;
  std::vector<std::string_view> names;  ///< of the source's tensors, sorted; the order of the work
};

}  // namespace quantize_checkpoint
