// Staging folders that a killed process has left: `.mixbit-PID-N`, within the folder that an output goes to.
//
// Contract: who stages holds a lock on its folder, which the system lets go of when the process ends, however it does.
// remove_abandoned_staging() removes the folders of this user whose lock is free and whose process is not there.
// Neither is enough by itself: the folder may be on a network and its process on another machine or in another
// container, where numbers mean other processes; and not every file system has locks, which then are never free. A
// folder without a lock may be one that a process elsewhere has made this moment: it goes only where it is empty, and
// who made it makes another. Where there is doubt the folder stays. Files of atomic_file, `.mixbit-PID-N.tmp`, have no
// lock and stay too.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

namespace mixbit::detail {

/// Of a folder called `.mixbit-PID-N`; 0 for other names.
inline pid_t staging_process(std::string_view name) {
  constexpr std::string_view prefix = ".mixbit-";
  if (!name.starts_with(prefix)) return 0;
  char const *const first = name.data() + prefix.size(), *const last = name.data() + name.size();
  pid_t process = 0;
  unsigned count = 0;
  auto const [dash, code] = std::from_chars(first, last, process);
  if (code != std::errc{} || dash == last || *dash != '-' || process <= 1) return 0;
  auto const [end, count_code] = std::from_chars(dash + 1, last, count);
  return count_code == std::errc{} && end == last ? process : 0;
}

/// The descriptor that holds the lock of a staging folder, to be closed; below 0 where somebody else holds it, or where
/// there are no locks; errno says which.
inline int lock_staging(std::filesystem::path const& staging, int flags) {
  int const file = ::open((staging / "lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
  if (file < 0 || ::flock(file, LOCK_EX | LOCK_NB) == 0) return file;
  int const code = errno;
  ::close(file);
  errno = code;
  return -1;
}

inline bool is_abandoned_staging(std::filesystem::path const& path) {
  pid_t const process = staging_process(path.filename().native());
  struct stat status {};
  if (process == 0 || ::lstat(path.c_str(), &status) != 0) return false;
  return S_ISDIR(status.st_mode) && status.st_uid == ::geteuid() && ::kill(process, 0) != 0 && errno == ESRCH;
}

/// The lock goes last: killed before that, the rest is still known to be abandoned.
inline void remove_staging(std::filesystem::path const& staging) noexcept {
  std::error_code ignored;
  for (char const* const part : {"new", "old"}) std::filesystem::remove_all(staging / part, ignored);
  std::filesystem::remove_all(staging, ignored);
}

/// Below `folder` itself, not deeper. What cannot be removed stays.
inline void remove_abandoned_staging(std::filesystem::path const& folder) {
  std::error_code none;
  std::filesystem::directory_iterator it{folder, none};
  for (; !none && it != std::filesystem::directory_iterator{}; it.increment(none)) {
    if (!is_abandoned_staging(it->path())) continue;
    int const held = lock_staging(it->path(), 0);
    std::error_code ignored;
    if (held < 0) {
      if (errno == ENOENT) std::filesystem::remove(it->path(), ignored);  // an empty one only
      continue;
    }
    remove_staging(it->path());
    ::close(held);
    std::filesystem::remove(it->path(), ignored);  // NFS keeps the name of an open file until here
  }
}

}  // namespace mixbit::detail
