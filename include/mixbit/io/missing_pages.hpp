// Pages of mapped files that cannot be read: another process has cut the file short, or its disk fails. The system then
// raises SIGBUS where the page is touched, which ends the process. Signal handlers are a program's, not a library's:
// nothing here acts unless a program calls watch_missing_pages().
//
// Contract: from that call on such a page reads as zeros, and the process goes on until somebody asks:
// require_no_missing_pages() throws `file_open` naming the file, and keeps throwing. mapped_file::require_unchanged()
// asks, and so do atomic_file and staged_output when they commit: what was made of the zeros is never published, and
// what was staged goes away as after any error. A program asks once more before it ends (examples/run_program.hpp). It
// is meant for programs that do one thing and end. A handler that jumped out of the fault would leave other threads'
// work and every destructor behind; one that ended the process would leave what is staged.
//
// Where such a page is given to the system to write, there is no signal: it says EFAULT, as if the fault were the
// output's. fail_unreadable() names the file that is at fault, whether or not a program watches.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "mixbit/core/error.hpp"
#include "mixbit/core/quoted.hpp"

namespace mixbit {

namespace detail {

using mapped_path = std::array<char, 4097>;

/// What the handler leaves for those who ask; the file is named once `named` is set.
struct missing_page_record {
  std::atomic<bool> seen{false}, naming{false}, looked{false}, named{false};
  mapped_path file{};
  std::uintptr_t page_size = 4096;
};
inline missing_page_record missing_page;

/// The file that is mapped at an address, from a text as /proc/self/maps is: `START-END ... PATH` a line. It is fed
/// character by character, and calls nothing: it runs within a signal handler.
class mapped_path_finder {
 public:
  mapped_path_finder(std::uintptr_t address, mapped_path& path) : address_{address}, path_{path} {}

  /// False once the file is known.
  bool take(char c) {
    if (c == '\n') {
      if (length_ > 0) return false;
      part_ = part::start, start_ = end_ = 0;
    } else if (part_ == part::start) {
      c == '-' ? void(part_ = part::end) : add(start_, c);
    } else if (part_ == part::end) {
      c == ' ' ? void(part_ = start_ <= address_ && address_ < end_ ? part::before_path : part::other) : add(end_, c);
    } else if (part_ == part::path || (part_ == part::before_path && c == '/')) {
      part_ = part::path;
      if (length_ + 1 < path_.size()) path_[length_++] = c;
    }
    return true;
  }

 private:
  enum class part { start, end, before_path, path, other };

  static void add(std::uintptr_t& number, char digit) {
    number = number * 16 + static_cast<std::uintptr_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
  }

  std::uintptr_t address_, start_ = 0, end_ = 0;
  mapped_path& path_;
  std::size_t length_ = 0;
  part part_ = part::start;
};

/// The file that is mapped at an address; false where that is not known.
inline bool find_mapped_path(std::uintptr_t address, mapped_path& path) {
  int const maps = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);  // where there is none, the file stays unnamed
  if (maps < 0) return false;
  mapped_path_finder finder{address, path};
  char piece[1024];
  bool more = true;
  for (ssize_t n = 0; more && (n = ::read(maps, piece, sizeof piece)) > 0;)
    for (ssize_t i = 0; more && i < n; ++i) more = finder.take(piece[i]);
  ::close(maps);
  return path[0] != '\0';
}

/// The first thread that comes here looks; others wait, since what they do to their page may be what it looks for.
inline void name_missing_file(std::uintptr_t address) {
  if (missing_page.naming.exchange(true)) {
    while (!missing_page.looked) ::usleep(100);
    return;
  }
  missing_page.named = find_mapped_path(address, missing_page.file);
  missing_page.looked = true;
}

[[noreturn]] inline void fail_missing_page(char const* file) {
  fail(error_id::file_open, file != nullptr ? in_quotes(file) : "a file that is read",
       ": a part of it is missing; it was cut short while it was read, or its disk fails");
}

/// Puts a page of zeros where none can be read. What is no such page ends the process as it would have.
inline void on_missing_page(int signal, siginfo_t* info, void*) {
  int const kept = errno;
  auto const address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  bool replaced = false;
  if (info->si_code == BUS_ADRERR) {
    name_missing_file(address);  // before the page is another mapping
    missing_page.seen = true;    // behind the name, which who looks is to find; before there are zeros to read
    auto* const page = reinterpret_cast<void*>(address & ~(missing_page.page_size - 1));
    replaced = ::mmap(page, missing_page.page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page;
  }
  if (!replaced) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  }
  errno = kept;
}

}  // namespace detail

/// For programs, once, before they read: what the top of this file says.
inline void watch_missing_pages() {
  detail::missing_page.page_size = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = detail::on_missing_page;
  action.sa_flags = SA_SIGINFO;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

/// Throws `file_open` if a page of any mapped file could not be read since the program began to watch.
inline void require_no_missing_pages() {
  auto const& page = detail::missing_page;
  if (page.seen) detail::fail_missing_page(page.named ? page.file.data() : nullptr);
}

/// Throws `file_open` for bytes that the system was given to write and could not read (EFAULT), naming the file that is
/// mapped there.
[[noreturn]] inline void fail_unreadable(void const* bytes) {
  require_no_missing_pages();
  detail::mapped_path file{};
  bool const found = detail::find_mapped_path(reinterpret_cast<std::uintptr_t>(bytes), file);
  detail::fail_missing_page(found ? file.data() : nullptr);
}

}  // namespace mixbit
