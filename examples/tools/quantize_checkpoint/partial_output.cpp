#include "partial_output.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <exception>
#include <string_view>
#include <system_error>

#include "mixbit/io/atomic_file.hpp"
#include "mixbit/io/mapped_file.hpp"

namespace quantize_checkpoint {

namespace fs = std::filesystem;

namespace {

/// Empty where there is none.
mixbit::mapped_file file_at(fs::path const& path) {
  std::error_code none;
  return fs::exists(path, none) ? mixbit::mapped_file{path} : mixbit::mapped_file{};
}

}  // namespace

partial_output::partial_output(fs::path const& folder, std::string const& work, std::vector<partial_file> const& files)
    : folder_{folder}, hidden_{folder / ".quantize_checkpoint"} {
  for (auto const& file : files) names_.push_back(file.name);
  std::error_code code;
  made_folder_ = fs::create_directories(folder_, code);
  if (!code) fs::create_directory(hidden_, code);
  if (code) mixbit::fail_path("write into", folder_, code.value());
  lock();
  try {
    if (is_of(work)) open_files();
    else start(work, files);
  } catch (...) {
    finished_with();
    throw;
  }
}

partial_output::~partial_output() { finished_with(); }

void partial_output::finished_with() noexcept {
  for (int& file : files_)
    if (file >= 0) ::close(std::exchange(file, -1));
  if (done_file_ >= 0) ::close(std::exchange(done_file_, -1));
  if (lock_ < 0) return;
  std::error_code ignored;
  fs::remove_all(hidden_, ignored);
  ::close(std::exchange(lock_, -1));
  if (made_folder_) fs::remove(folder_, ignored);  // only if nothing was written into it
}

/// Two processes that write the same files would spoil both.
void partial_output::lock() {
  auto const path = hidden_ / "lock";
  int const file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) mixbit::fail_path("write into", hidden_);
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    int const code = errno;
    ::close(file);
    if (code != EWOULDBLOCK) mixbit::fail_path("lock", path, code);
    mixbit::fail(mixbit::error_id::file_open, "cannot write into ", mixbit::in_quotes(folder_),
                 ": another quantize_checkpoint is writing there");
  }
  lock_ = file;
}

/// Is there whole what an earlier run of this work began?
bool partial_output::is_of(std::string const& work) const {
  if (file_at(hidden_ / "work").text() != work) return false;
  std::error_code none;
  return std::all_of(names_.begin(), names_.end(), [&](auto const& n) { return fs::exists(hidden_ / n, none); });
}

void partial_output::start(std::string const& work, std::vector<partial_file> const& files) {
  {
    auto const left = file_at(hidden_ / "work");
    begins_anew_ = left.size() != 0 && left.text() != work;  // of the same work its files may be gone
  }
  for (auto const& entry : fs::directory_iterator{hidden_})
    if (entry.path().filename() != "lock") fs::remove_all(entry.path());
  for (std::size_t i = 0; i < files.size(); ++i) {
    files_.push_back(::open((hidden_ / files[i].name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (files_.back() < 0 || ::ftruncate(files_.back(), files[i].size) != 0) fail_writing(i, errno);
    begin(i, files[i]);
  }
  open_done();
  mixbit::write_file_atomically(hidden_ / "work", work);  // last: without it the rest is not taken up
}

void partial_output::open_files() {
  for (auto const& name : names_) {
    files_.push_back(::open((hidden_ / name).c_str(), O_WRONLY | O_CLOEXEC));
    if (files_.back() < 0) fail_writing(files_.size() - 1, errno);
  }
  open_done();
  auto const file = file_at(hidden_ / "done");
  auto const done = file.text();
  std::from_chars(done.data(), done.data() + done.size(), done_);
}

void partial_output::begin(std::size_t file, partial_file const& of) {
  std::string buffer;
  std::int64_t offset = 0;
  auto const flush = [&] {
    write(file, offset, std::as_bytes(std::span{buffer}));
    offset += static_cast<std::int64_t>(buffer.size());
    buffer.clear();
  };
  of.head([&](std::string_view piece) {
    buffer += piece;
    if (buffer.size() >= std::size_t{1} << 18) flush();
  });
  flush();
}

void partial_output::write(std::size_t file, std::int64_t offset, std::span<std::byte const> bytes) {
  while (!bytes.empty()) {
    ssize_t const count = ::pwrite(files_[file], bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EFAULT) mixbit::fail_unreadable(bytes.data());
    if (count <= 0) fail_writing(file, count == 0 ? EIO : errno);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += count;
  }
}

void partial_output::open_done() {
  done_file_ = ::open((hidden_ / "done").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (done_file_ < 0) mixbit::fail_path("write into", folder_);
}

/// One write in one place, always of one length: a process that is killed has written all of it or nothing. To replace
/// a file took longer than to write a small tensor.
void partial_output::finished(std::size_t count) {
  std::string text = std::to_string(done_ = count);
  text.insert(0, done_digits - text.size(), '0');
  if (::pwrite(done_file_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    mixbit::fail_path("write into", folder_);
}

void partial_output::move_into(mixbit::staged_output& out) {
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (::close(std::exchange(files_[i], -1)) != 0) fail_writing(i, errno);  // some report full disks here
    auto const from = hidden_ / names_[i], to = out.path(names_[i]);
    // a second name, where the file system has them: killed before all is published, nothing has to be made again
    if (::link(from.c_str(), to.c_str()) != 0 && ::rename(from.c_str(), to.c_str()) != 0) fail_writing(i, errno);
  }
}

void partial_output::fail_writing(std::size_t file, int code) const {
  mixbit::fail_path("write", folder_ / names_[file], code);
}

}  // namespace quantize_checkpoint
