// An output folder with several files and sub-folders that changes as a whole or not at all.
//
// Contract: files are written below a hidden folder inside the target (so that renames stay on one file system) and
// moved to their places by commit(). Without commit(), or if commit() throws, the target holds what it held before, and
// folders that were created for it are gone again. Files of the target that are not written stay in both cases, but for
// those that commit() is told to take away. Each move is one rename; a process killed between two of them leaves whole
// files of both generations, never half of one, and not the file that publish_last() names: readers that begin with it
// find no output, and not a mixed one. The hidden folder of a process that was killed goes when the next output comes
// to the same folder (abandoned_staging.hpp).
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "mixbit/io/abandoned_staging.hpp"
#include "mixbit/io/atomic_file.hpp"

namespace mixbit {

class staged_output {
 public:
  /// Prepares `folder`, which is created with its parents if need be. Errors throw `file_open`.
  explicit staged_output(std::filesystem::path const& folder) {
    std::error_code code;
    folder_ = std::filesystem::absolute(folder, code).lexically_normal();
    if (code) fail_path("write into", folder, code.value());
    if (!folder_.has_filename()) folder_ = folder_.parent_path();
    try {
      create_folders(folder_);
      detail::remove_abandoned_staging(folder_);
      do {
        root_ = folder_ / detail::next_temporary_name();
      } while (!create_folder(root_) || !lock_root());
      create_folder(fresh());
      create_folder(replaced());
    } catch (...) {
      discard();
      throw;
    }
  }

  staged_output(staged_output const&) = delete;
  staged_output& operator=(staged_output const&) = delete;
  ~staged_output() { discard(); }

  /// Where the output will be.
  std::filesystem::path const& folder() const noexcept { return folder_; }

  /// Where to write now what will be `folder()/relative`; folders on the way are made. Throws `file_open` for a path
  /// that is absolute or leaves the folder, and where a folder lies in the file's place or a file in a folder's.
  std::filesystem::path path(std::filesystem::path const& relative) {
    auto const place = inside(relative);
    require_place(place);
    auto const result = fresh() / place;
    std::error_code code;
    std::filesystem::create_directories(result.parent_path(), code);
    if (code) fail_path("create", result.parent_path(), code.value());
    return result;
  }

  /// Files of the target that commit() takes away unless this output writes them: what an earlier output left would
  /// otherwise lie beside this one. Throws what path() throws.
  void remove_stale(std::filesystem::path const& relative) { stale_.push_back(inside(relative)); }

  /// The file of this output that readers begin with, as config.json of a checkpoint: commit() takes the old one away
  /// before all else and puts the new one in its place behind all others. Throws what path() throws.
  void publish_last(std::filesystem::path const& relative) { last_.push_back(inside(relative)); }

  /// Moves everything to its place; all of it, or nothing and an error.
  void commit() {
    if (root_.empty()) fail(error_id::file_open, "cannot write ", in_quotes(folder_), ": already committed");
    require_no_missing_pages();
    try {
      for (auto const& file : last_)
        if (exists(fresh() / file)) take_away(folder_ / file);
      for (auto const& file : stale_)
        if (!exists(fresh() / file)) take_away(folder_ / file);
      for (auto const& staged : contents()) place(staged);
    } catch (std::filesystem::filesystem_error const& problem) {
      roll_back();
      fail_path("write into", folder_, problem.code().value());
    } catch (...) {
      roll_back();
      throw;
    }
    moves_.clear();
    created_.clear();
    discard();
  }

 private:
  struct move {
    std::filesystem::path target, backup;  // no backup: the target did not exist
  };

  /// False where another process has taken the empty folder for abandoned: it removed the folder, or holds its lock and
  /// is about to. Without locks, what a kill leaves stays.
  bool lock_root() {
    lock_ = detail::lock_staging(root_, O_CREAT | O_EXCL);
    return lock_ >= 0 || (errno != ENOENT && errno != EWOULDBLOCK);
  }

  std::filesystem::path fresh() const { return root_ / "new"; }
  std::filesystem::path replaced() const { return root_ / "old"; }

  static std::filesystem::path inside(std::filesystem::path const& relative) {
    auto const normal = relative.lexically_normal();
    if (normal.empty() || normal.is_absolute() || *normal.begin() == "..")
      fail(error_id::file_open, "cannot write ", in_quotes(relative), ": not a path inside the output folder");
    return normal;
  }

  void require_place(std::filesystem::path const& relative) const {
    std::error_code ignored;
    if (std::filesystem::is_directory(folder_ / relative, ignored)) fail_path("write", folder_ / relative, EISDIR);
    for (auto folder = relative.parent_path(); !folder.empty(); folder = folder.parent_path())
      if (exists(folder_ / folder) && !std::filesystem::is_directory(folder_ / folder, ignored))
        fail_path("write into", folder_ / folder, ENOTDIR);
  }

  /// Also true for a symbolic link that leads nowhere.
  static bool exists(std::filesystem::path const& path) {
    std::error_code ignored;
    return std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
  }

  /// False if it exists.
  static bool create_folder(std::filesystem::path const& path) {
    std::error_code code;
    bool const created = std::filesystem::create_directory(path, code);
    if (code) fail_path("create", path, code.value());
    return created;
  }

  /// `path` and its parents, remembering which are new.
  void create_folders(std::filesystem::path const& path) {
    std::error_code ignored;
    if (path.empty() || std::filesystem::is_directory(path, ignored)) return;
    if (exists(path)) fail_path("write into", path, ENOTDIR);
    create_folders(path.parent_path());
    if (create_folder(path)) created_.push_back(path);
  }

  /// Everything staged, relative to it, in the order of the moves: folders before what they hold, last_ behind all.
  std::vector<std::filesystem::path> contents() const {
    std::vector<std::filesystem::path> result;
    for (auto const& entry : std::filesystem::recursive_directory_iterator{fresh()})
      result.push_back(entry.path().lexically_relative(fresh()));
    std::sort(result.begin(), result.end());
    std::stable_partition(result.begin(), result.end(),
                          [this](auto const& p) { return std::find(last_.begin(), last_.end(), p) == last_.end(); });
    return result;
  }

  void place(std::filesystem::path const& relative) {
    auto const staged = fresh() / relative, target = folder_ / relative;
    std::error_code code;
    if (std::filesystem::is_directory(staged)) return create_folders(target);
    if (std::filesystem::is_directory(target, code)) fail_path("write", target, EISDIR);
    move done{target, {}};
    if (exists(target)) {
      done.backup = replaced() / std::to_string(moves_.size());
      // A hard link keeps the old file in place until the rename replaces it; not every file system has them.
      if (::link(target.c_str(), done.backup.c_str()) != 0) rename(target, done.backup, target);
    }
    moves_.push_back(done);
    rename(staged, target, target);
  }

  /// Moves a file of the target aside, where commit() deletes it in the end; folders stay.
  void take_away(std::filesystem::path const& target) {
    std::error_code code;
    if (!exists(target) || std::filesystem::is_directory(target, code)) return;
    move const done{target, replaced() / std::to_string(moves_.size())};
    rename(target, done.backup, target);
    moves_.push_back(done);
  }

  static void rename(std::filesystem::path const& from, std::filesystem::path const& to,
                     std::filesystem::path const& named) {
    if (::rename(from.c_str(), to.c_str()) != 0) fail_path("write", named);
  }

  void roll_back() noexcept {
    for (; !moves_.empty(); moves_.pop_back()) {
      move const& last = moves_.back();
      if (last.backup.empty()) ::unlink(last.target.c_str());
      else ::rename(last.backup.c_str(), last.target.c_str());
    }
    discard();
  }

  /// Removes what was staged, and the folders that were made for it. Never throws: it runs while errors pass.
  void discard() noexcept {
    std::error_code ignored;
    auto const root = std::exchange(root_, {});
    if (!root.empty()) detail::remove_staging(root);
    if (lock_ >= 0) {
      ::close(std::exchange(lock_, -1));
      if (!root.empty()) std::filesystem::remove(root, ignored);  // NFS keeps the name of an open file until here
    }
    for (; !created_.empty(); created_.pop_back()) std::filesystem::remove(created_.back(), ignored);
  }

  std::filesystem::path folder_, root_;
  int lock_ = -1;
  std::vector<std::filesystem::path> created_, stale_, last_;
  std::vector<move> moves_;
};

}  // namespace mixbit
