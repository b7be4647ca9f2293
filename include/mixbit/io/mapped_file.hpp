// Files read through memory: the kernel brings pages in as they are touched and drops them under pressure, so a file
// may be larger than memory.
//
// Contract: a mapped_file is a read-only view of a regular file as long as it was when it was opened. It is move-only;
// spans taken from it live as long as the object that holds the mapping, moves included. Errors throw `file_open` and
// name the path and the system's reason. Writers that replace files by rename, as atomic_file does, change nothing for
// those who have the old one mapped. One who writes into a mapped file changes what is read, and one who shortens it
// takes pages away, whose use raises SIGBUS. require_unchanged() tells, between one use and the next; that narrows the
// time in which pages can go unnoticed, and a program closes it with watch_missing_pages(). The file stays open for it.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "mixbit/io/missing_pages.hpp"
#include "mixbit/io/path_error.hpp"

namespace mixbit {

class mapped_file {
 public:
  /// Maps nothing: bytes() is empty.
  mapped_file() = default;

  /// Maps the whole file. An empty file is fine and maps nothing.
  explicit mapped_file(std::filesystem::path path) : path_{std::move(path)} {
    descriptor file{::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};  // a FIFO would wait for a writer
    if (file.number < 0) fail_path("open", path_);
    struct stat const status = status_of(file.number);
    if (S_ISDIR(status.st_mode)) fail_path("read", path_, EISDIR);
    if (!S_ISREG(status.st_mode)) fail(error_id::file_open, "cannot read ", in_quotes(path_), ": not a regular file");
    auto const size = static_cast<std::uint64_t>(status.st_size);
    if (size > std::numeric_limits<std::size_t>::max()) fail_path("map", path_, EFBIG);
    if (size != 0) map(file.number, static_cast<std::size_t>(size));
    changed_ = status.st_mtim;
    file_ = std::move(file);
  }

  mapped_file(mapped_file&& other) noexcept
      : path_{std::move(other.path_)},
        data_{std::exchange(other.data_, nullptr)},
        size_{std::exchange(other.size_, 0)},
        changed_{other.changed_},
        file_{std::move(other.file_)} {}

  mapped_file& operator=(mapped_file&& other) noexcept {
    mapped_file taken{std::move(other)};
    std::swap(path_, taken.path_);
    std::swap(data_, taken.data_);
    std::swap(size_, taken.size_);
    std::swap(changed_, taken.changed_);
    std::swap(file_, taken.file_);
    return *this;
  }

  ~mapped_file() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }

  std::filesystem::path const& path() const noexcept { return path_; }
  std::size_t size() const noexcept { return size_; }
  /// When it was last written to before it was opened, in nanoseconds of the system's clock. Of the file that is
  /// mapped: another may have been renamed over its path since.
  std::int64_t written_at() const noexcept {
    return std::int64_t{changed_.tv_sec} * 1'000'000'000 + std::int64_t{changed_.tv_nsec};
  }

  /// The content; page-aligned at its start.
  std::span<std::byte const> bytes() const noexcept { return {static_cast<std::byte const*>(data_), size_}; }

  /// The same content as characters, for text files.
  std::string_view text() const noexcept { return {static_cast<char const*>(data_), size_}; }

  /// Throws `file_open` if the file has another size or time than when it was opened, or if pages are missing: what was
  /// read since then may be neither the old content nor the new.
  void require_unchanged() const {
    if (file_.number < 0) return;
    struct stat const now = status_of(file_.number);
    if (static_cast<std::uint64_t>(now.st_size) != size_)
      fail(error_id::file_open, in_quotes(path_), ": was changed while it was read: of ", size_, " bytes it has ",
           std::int64_t{now.st_size});
    if (now.st_mtim.tv_sec != changed_.tv_sec || now.st_mtim.tv_nsec != changed_.tv_nsec)
      fail(error_id::file_open, in_quotes(path_), ": was changed while it was read");
    require_no_missing_pages();
  }

 private:
  /// Closes on every way out.
  struct descriptor {
    int number = -1;
    descriptor() = default;
    explicit descriptor(int n) : number{n} {}
    descriptor(descriptor&& other) noexcept : number{std::exchange(other.number, -1)} {}
    descriptor& operator=(descriptor&& other) noexcept {
      std::swap(number, other.number);
      return *this;
    }
    ~descriptor() {
      if (number >= 0) ::close(number);
    }
  };

  struct stat status_of(int file) const {
    struct stat status {};
    if (::fstat(file, &status) != 0) fail_path("read", path_);
    return status;
  }

  void map(int file, std::size_t size) {
    void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (address == MAP_FAILED) fail_path("map", path_);
    data_ = address;
    size_ = size;
    // Checkpoints are read from front to back. Only advice: a failure changes nothing but the speed.
    static_cast<void>(::madvise(address, size, MADV_SEQUENTIAL));
  }

  std::filesystem::path path_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
  timespec changed_{};  ///< when it was opened
  descriptor file_;
};

}  // namespace mixbit
