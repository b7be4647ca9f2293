// What is behind stored_model.hpp, for one source file of a program: files.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "config_file.hpp"
#include "mixbit/io/safetensors_set.hpp"
#include "stored_model.hpp"

namespace byte_lm {

namespace detail {

/// Holds config.json to the checkpoint's header before memory is taken by it: a number that is far off is named here
/// instead of ending as std::bad_alloc. Tensors are compared one by one when they are loaded.
class shape_check {
 public:
  shape_check(std::string config_path, mixbit::safetensors_set const& file)
      : config_{std::move(config_path)}, file_{file} {}

  void run(config const& c) const {
    std::string const embedding = "model.embed_tokens.weight", layer = "model.layers.0.";
    size("vocab_size", c.vocab_size, embedding, 0);
    size("hidden_size", c.hidden_size, embedding, 1);
    if (auto const there = layers(); c.num_hidden_layers != there)
      refuse("num_hidden_layers", c.num_hidden_layers,
             mixbit::detail::concat(file_.label(), " has ", there, " layers"));
    size("intermediate_size", c.intermediate_size, layer + "mlp.up_proj.weight", 0);
    heads("num_attention_heads", c.num_attention_heads, c.head_dim, layer + "self_attn.q_proj.weight");
    heads("num_key_value_heads", c.num_key_value_heads, c.head_dim, layer + "self_attn.k_proj.weight");
  }

 private:
  /// Different N in the names model.layers.N.*
  std::int64_t layers() const {
    constexpr std::string_view prefix = "model.layers.";
    std::set<std::string_view> numbers;
    for (std::string_view const name : file_.names())
      if (name.starts_with(prefix))
        numbers.insert(name.substr(prefix.size(), name.find('.', prefix.size()) - prefix.size()));
    return static_cast<std::int64_t>(numbers.size());
  }

  void size(char const* field, std::int64_t value, std::string const& tensor, int axis) const {
    auto const there = file_.at(tensor);
    if (there.rank != 2 || there.shape[axis] != value) refuse(field, value, is(tensor, there));
  }

  void heads(char const* field, std::int64_t value, std::int64_t head_dim, std::string const& tensor) const {
    auto const there = file_.at(tensor);
    if (there.rank != 2 || there.shape[0] != value * head_dim)
      refuse(field, value,
             mixbit::detail::concat("with head_dim ", head_dim, " that is ", value * head_dim, " rows, and ",
                                    is(tensor, there)));
  }

  std::string is(std::string const& tensor, mixbit::const_tensor_ref const& there) const {
    return mixbit::detail::concat("tensor '", tensor, "' of ", file_.label(), " is ", to_string(there));
  }

  [[noreturn]] void refuse(char const* field, std::int64_t value, std::string const& why) const {
    mixbit::fail(mixbit::error_id::file_content, config_, ": field '", field, "' is ", value, ", but ", why);
  }

  std::string config_;
  mixbit::safetensors_set const& file_;
};

/// Tensors that a Llama's checkpoint may hold though this model has no parameter for them.
inline bool is_derived(std::string const& name, config const& c) {
  return name.ends_with(".rotary_emb.inv_freq") || (name == "lm_head.weight" && c.tie_word_embeddings);
}

}  // namespace detail

struct stored_model::files {
  config shapes;
  mixbit::safetensors_set tensors;
  std::set<std::string> read{};
};

stored_model::stored_model(std::string const& folder) {
  std::string const config_path = folder + "/config.json";
  auto shapes = read_config(config_path);
  files_ = std::make_unique<files>(files{shapes, mixbit::safetensors_set::open(folder)});
  detail::shape_check{config_path, files_->tensors}.run(shapes);
}

stored_model::~stored_model() = default;

config const& stored_model::shapes() const { return files_->shapes; }

void stored_model::read(std::string const& name, std::vector<std::int64_t> const& shape,
                               std::span<float> values) {
  auto const& file = files_->tensors;
  auto const refuse = [&](auto const&... parts) {
    mixbit::fail(mixbit::error_id::file_content, file.label(), ": tensor '", name, "' ", parts...);
  };
  if (!file.contains(name)) refuse("is missing");
  mixbit::const_tensor_ref const stored = file.at(name);
  mixbit::geometry const expected = mixbit::dense_geometry(stored.type, shape);
  if (!expected.same_shape(stored))
    refuse("has the shape ", mixbit::to_string(stored), ", and config.json asks for ", mixbit::to_string(expected));
  auto const found = file.read_as_float(name);
  for (std::size_t i = 0; i < found.size(); ++i)
    if (!std::isfinite(found[i]))
      refuse("holds ", found[i], " at element ", i, "; a model with such a weight computes nothing");
  std::copy(found.begin(), found.end(), values.begin());
  files_->read.insert(name);
}

void stored_model::require_all_read() const {
  auto const& file = files_->tensors;
  for (auto const& name : file.names())
    if (!files_->read.contains(name) && !detail::is_derived(name, files_->shapes))
      mixbit::fail(mixbit::error_id::file_content, file.label(), ": tensor '", name,
                   "' has no place in config.json's Llama");
}

}  // namespace byte_lm
