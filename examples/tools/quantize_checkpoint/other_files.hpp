// What lies beside a checkpoint's weights and comes along, and whether an output has its places free.
#pragma once

#include <filesystem>
#include <vector>

#include "options.hpp"

namespace quantize_checkpoint {

/// The tokenizer and what else is no weights and is not written anew, in folders too; relative to the folder.
std::vector<std::filesystem::path> other_files(std::filesystem::path const& folder);

/// Throws `file_open` where a file cannot be in its place of the output, before there is any work: a folder is there,
/// or a file where a folder has to be. Leaves nothing.
void require_places(std::filesystem::path const& out, std::vector<std::filesystem::path> const& files);

/// The files that are written whatever becomes of the tensors.
std::vector<std::filesystem::path> known_files(options const& o);

}  // namespace quantize_checkpoint
