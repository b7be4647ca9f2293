// Sums over batches depend on their order: what adds up a layer's data lets one thread show it all of them.
#pragma once

#include <string>
#include <thread>

#include "mixbit/core/error.hpp"

namespace mixbit {

namespace detail {

class one_thread {
 public:
  /// Throws `state_busy`, naming the layer, for a second thread.
  void claim(std::string const& layer) {
    auto const me = std::this_thread::get_id();
    if (shown_by_ == std::thread::id{}) shown_by_ = me;
    if (shown_by_ != me)
      fail(error_id::state_busy, layer, ": two threads show its data to a calibration that adds up over batches; run ",
           "the batches of this layer on one thread");
  }

 private:
  std::thread::id shown_by_{};
};

}  // namespace detail

}  // namespace mixbit
