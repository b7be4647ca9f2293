// Loading a model from a folder as Hugging Face writes it.
#pragma once

#include <span>
#include <string>

#include "model.hpp"
#include "stored_model.hpp"

namespace byte_lm {

/// Throws what stored_model throws.
inline language_model load_model(std::string const& folder, executor_ref executor = {}) {
  stored_model files{folder};
  language_model model{files.shapes(), executor};
  model.for_each_parameter([&](std::string const& name, parameter& p) {
    files.read(name, p.shape, {p.value.data(), static_cast<std::size_t>(p.value.size())});
  });
  files.require_all_read();
  return model;
}

}  // namespace byte_lm
