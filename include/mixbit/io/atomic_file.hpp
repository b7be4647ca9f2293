// One output file that appears whole or not at all.
//
// Contract: bytes go to a temporary file in the target's folder; commit() renames it over the target in one step.
// Several files that belong together are first all finished, which is where a disk is full, and then committed.
// Without commit(), or after any failed write, the temporary file is removed and the target is as it was. Errors throw
// `file_open` and name the target and the system's reason, or the mapped file whose pages were to be written and are
// not there. A process that is killed leaves at most a file called
// .mixbit-PID-N.tmp. Where a file size limit is set (RLIMIT_FSIZE) a program has to ignore SIGXFSZ to get the error.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "mixbit/io/missing_pages.hpp"
#include "mixbit/io/path_error.hpp"

namespace mixbit {

/// What commit() waits for. `renamed` survives a crash of the program, `synced` also one of the machine.
enum class durability { renamed, synced };

namespace detail {

/// ".mixbit-PID-N", N counting up within the process. Callers create it exclusively and take the next if it exists,
/// which also covers left-overs of a killed process with the same PID.
inline std::string next_temporary_name() {
  static std::atomic<unsigned> counter{0};
  return ".mixbit-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
}

}  // namespace detail

class atomic_file {
 public:
  /// Opens the temporary file. The target's folder must exist, and the target must not be something other than a
  /// regular file (a rename over a device node would destroy it). A symbolic link is replaced, not followed.
  explicit atomic_file(std::filesystem::path target) : target_{std::move(target)} {
    std::error_code ignored;
    auto const status = std::filesystem::status(target_, ignored);
    if (std::filesystem::is_directory(status)) fail_path("write", target_, EISDIR);
    if (!target_.has_filename() || (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)))
      fail(error_id::file_open, "cannot write ", in_quotes(target_), ": not a regular file");
    do {
      temporary_ = target_.parent_path() / (detail::next_temporary_name() + ".tmp");
      file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (file_ < 0 && errno == EEXIST);
    if (file_ < 0) fail_path("write", target_);
  }

  atomic_file(atomic_file const&) = delete;
  atomic_file& operator=(atomic_file const&) = delete;
  ~atomic_file() { discard(); }

  std::filesystem::path const& path() const noexcept { return target_; }

  /// Appends. Small pieces are collected; large ones go straight from the caller's memory.
  void write(std::span<std::byte const> bytes) {
    if (file_ < 0) fail_closed();
    if (bytes.size() > capacity - used_) {
      flush();
      if (bytes.size() >= capacity) return put(bytes);
    }
    if (bytes.empty()) return;
    std::memcpy(buffer_.get() + used_, bytes.data(), bytes.size());
    used_ += bytes.size();
  }

  void write(std::string_view text) { write(std::as_bytes(std::span{text})); }

  /// Brings all content to the temporary file, for `wanted`. Nothing can be written afterwards; commit() still renames.
  void finish(durability wanted = durability::renamed) {
    if (file_ < 0) fail_closed();
    require_no_missing_pages();
    flush();
    if (wanted == durability::synced && ::fsync(file_) != 0) give_up();
    if (::close(std::exchange(file_, -1)) != 0) give_up();  // network file systems report a full disk here
    wanted_ = wanted;
  }

  /// Makes the content the target's, finished for `wanted` unless it is finished already. Once.
  void commit(durability wanted = durability::renamed) {
    if (file_ >= 0) finish(wanted);
    if (temporary_.empty()) fail_closed();
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) give_up();
    temporary_.clear();
    if (wanted_ == durability::synced) sync_folder();
  }

 private:
  static constexpr std::size_t capacity = std::size_t{1} << 18;

  void flush() { put({buffer_.get(), std::exchange(used_, 0)}); }

  void put(std::span<std::byte const> bytes) {
    while (!bytes.empty()) {
      ssize_t const count = ::write(file_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EFAULT) {
        discard();
        fail_unreadable(bytes.data());
      }
      if (count <= 0) give_up(count == 0 ? EIO : errno);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }

  [[noreturn]] void fail_closed() const {
    fail(error_id::file_open, "cannot write ", in_quotes(target_), ": already finished or failed");
  }

  [[noreturn]] void give_up(int code = errno) {
    discard();
    fail_path("write", target_, code);
  }

  void discard() noexcept {
    if (file_ >= 0) ::close(std::exchange(file_, -1));
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
  }

  /// The rename itself is durable once the folder is.
  void sync_folder() {
    auto const folder = target_.has_parent_path() ? target_.parent_path() : std::filesystem::path{"."};
    int const file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) fail_path("sync", folder);
    int const result = ::fsync(file), code = errno;
    ::close(file);
    if (result != 0) fail_path("sync", folder, code);
  }

  std::filesystem::path target_, temporary_;
  std::unique_ptr<std::byte[]> buffer_ =
      std::make_unique_for_overwrite<std::byte[]>(capacity);  // before the file opens
  std::size_t used_ = 0;
  int file_ = -1;
  durability wanted_ = durability::renamed;
};

/// The whole content at once.
inline void write_file_atomically(std::filesystem::path const& path, std::string_view text,
                                  durability wanted = durability::renamed) {
  atomic_file file{path};
  file.write(text);
  file.commit(wanted);
}

}  // namespace mixbit
