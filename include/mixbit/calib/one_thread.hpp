// Sums over batches depend on their order: what adds up a layer's data lets one thread show it all of them.
#pragma once

#include <string>

#include "mixbit/core/error.hpp"
#include "mixbit/core/thread_mark.hpp"

namespace mixbit {

namespace detail {

class one_thread {
 public:
  /// Throws `state_busy`, naming the layer, for a second thread.
  void claim(std::string const& layer) {
    thread_mark const me = this_thread();
    if (shown_by_ == nullptr) shown_by_ = me;
    if (shown_by_ != me)
      fail(error_id::state_busy, layer, ": two threads show its data to a calibration that adds up over batches; run ",
           "the batches of this layer on one thread");
  }

 private:
  thread_mark shown_by_ = nullptr;
};

}  // namespace detail

}  // namespace mixbit
