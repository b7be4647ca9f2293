// What --effective-bits may choose from: a layer is not given a format that the written form has no place for there.
#pragma once

#include <string>
#include <vector>

#include "mixbit/autoquant/candidate_stats.hpp"
#include "mixbit/autoquant/search.hpp"
#include "stored_model.hpp"

namespace quantize_checkpoint {

/// The search's groups without the candidates that one of their layers has no form for; layers that are fused lose a
/// candidate together. `stored`: what the model walks. A candidate of GGUF costs what its file stores.
/// `notes` is given a line for each that goes. Throws `format_value` for a format that no layer can have, with what the
/// first one lacks.
mixbit::candidate_stats possible_choices(std::string const& to, mixbit::model<backend>& model,
                                         mixbit::search<backend> const& search, stored_model const& stored,
                                         std::vector<std::string>& notes);

}  // namespace quantize_checkpoint
