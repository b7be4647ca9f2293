// Files of tensors that are written piece by piece into a hidden folder of the output, and are still there when the
// program is killed: run again with the same work it goes on where it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixbit/io/staged_output.hpp"

namespace quantize_checkpoint {

/// A file that grows from what it begins with; the rest is zeros.
struct partial_file {
  using put_text = std::function<void(std::string_view)>;

  std::string name;
  std::int64_t size = 0;
  std::function<void(put_text const&)> head;  ///< called where the file is begun; gives its text piece by piece
};

class partial_output {
 public:
  /// `work` is a text that says all that the files depend on: what an earlier run left of the same work is taken up,
  /// and of other work is thrown away. Throws `file_open`, also while another process writes into `folder`.
  partial_output(std::filesystem::path const& folder, std::string const& work,
                 std::vector<partial_file> const& files);
  partial_output(partial_output const&) = delete;
  partial_output& operator=(partial_output const&) = delete;
  /// After an error nothing of it stays; a process that is killed does not come here.
  ~partial_output();

  /// How many pieces of work an earlier run has finished.
  std::size_t done() const { return done_; }
  /// Was there other work, which is thrown away now?
  bool begins_anew() const { return begins_anew_; }
  /// Bytes of a file, by its place among those given, from its byte `offset` on.
  void write(std::size_t file, std::int64_t offset, std::span<std::byte const> bytes);
  /// From now on a run that takes this up begins behind `count` pieces.
  void finished(std::size_t count);

  /// Puts the files into `out`, which the caller commits.
  void move_into(mixbit::staged_output& out);

 private:
  static constexpr std::size_t done_digits = 20;

  bool is_of(std::string const& work) const;
  void lock();
  void start(std::string const& work, std::vector<partial_file> const& files);
  void open_files();
  void begin(std::size_t file, partial_file const& of);
  void finished_with() noexcept;
  void open_done();
  /// Named as it will be.
  [[noreturn]] void fail_writing(std::size_t file, int code) const;

  std::filesystem::path folder_, hidden_;
  bool made_folder_ = false;
  int lock_ = -1, done_file_ = -1;
  std::vector<std::string> names_;  ///< of the files
  std::vector<int> files_;
  std::size_t done_ = 0;
  bool begins_anew_ = false;
};

}  // namespace quantize_checkpoint
