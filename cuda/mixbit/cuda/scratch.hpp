// The memory that the sums of a kernel need between its two launches, and whose turn it is.
//
// Copies of a backend share this memory with their stream. The stream orders what has been launched; that the launches
// of one call follow each other, whatever the host's threads do, is up to the mutex.
#pragma once

#include <memory>
#include <mutex>

namespace mixbit::cuda {

struct scratch_memory {
  std::shared_ptr<double> sums;  ///< plan::scratch_sums of them
  std::mutex in_use;
};

/// One call's use of the memory: from the first get() until the end of this object, which is behind the last launch.
class scratch_use {
 public:
  /// Null for calls that need none.
  explicit scratch_use(scratch_memory* memory) : memory_{memory} {}

  double* get() {
    if (!turn_.owns_lock()) turn_ = std::unique_lock{memory_->in_use};
    return memory_->sums.get();
  }

 private:
  scratch_memory* memory_;
  std::unique_lock<std::mutex> turn_;
};

}  // namespace mixbit::cuda
