// require_forms and write_checkpoint: encoded weights and their scales as one safetensors file.
#include <deque>

#include "mixbit/formats/rules.hpp"
#include "mixbit/formats/storage.hpp"
#include "mixbit/io/safetensors_writer.hpp"
#include "quantization.hpp"

namespace digits {

namespace {

/// The tensors of a file, and the memory of those that are made for it.
class checkpoint {
 public:
  explicit checkpoint(backend& device) : device_{device} {}

  /// Codes and scales, of a calibrated quantizer with a form.
  void add_encoded(std::string const& name, mixbit::const_tensor_ref weight, mixbit::sequential_quantizer<backend>& s) {
    auto& q = only_member(s);
    auto const& how = q.numerics().how;
    auto const groups = q.grouping(weight);
    auto const size = storage_size_of(how, weight, groups);
    auto& codes = memory_.emplace_back(static_cast<std::size_t>(size.payload));
    auto& scales = memory_.emplace_back(static_cast<std::size_t>(size.scales));
    device_.encode({weight, groups, q.device_amax(), how, codes.data(), scales.data(), nullptr});
    tensors_.push_back({name, {code_geometry(how, weight), codes.data()}});
    tensors_.push_back({name + "_scale", {scale_geometry(groups), scales.data()}});
    metadata_.emplace_back(name, name_of(how.element));
  }

  /// The scale of an input that has a fixed one; those of dynamic quantizers are known only at run time.
  void add_scale(std::string const& name, mixbit::sequential_quantizer<backend>& s) {
    auto& q = only_member(s);
    if (!q.has_amax()) return;
    auto& memory = memory_.emplace_back();
    mixbit::formats::visit_rule(q.numerics().how, {}, [&](auto const& rule) {
      for (float const amax : q.amax(device_)) {
        float const scale = rule.file_scale(amax);
        auto const* const bytes = reinterpret_cast<std::uint8_t const*>(&scale);
        memory.insert(memory.end(), bytes, bytes + sizeof scale);
      }
    });
    tensors_.push_back({name, {scale_geometry(q.groups()), memory.data()}});
  }

  void add(std::string const& name, mixbit::const_tensor_ref values) { tensors_.push_back({name, values}); }

  void write(std::filesystem::path const& path) const { mixbit::write_safetensors(path, tensors_, metadata_); }

  /// Throws where a layer's quantizers have no form in this checkpoint; calibration does not matter.
  static void require_form(mixbit::recipe_quantizers<backend>& recipe) {
    if (auto* const input = recipe.find(mixbit::quantizer_role::input)) only_member(*input);
    auto* const weight = recipe.find(mixbit::quantizer_role::weight);
    if (weight == nullptr) return;
    auto const& q = only_member(*weight);
    auto const& n = q.numerics();
    if (n.amax_from != mixbit::amax_source::calibration)
      mixbit::fail(mixbit::error_id::format_value, q.name(),
                   ": this checkpoint holds weights with calibrated scales only, not ",
                   n.amax_from == mixbit::amax_source::data ? "dynamic ones" : "those of a constant amax");
    if (n.how.element.is_unsigned)
      mixbit::fail(mixbit::error_id::format_unsigned, q.name(), ": weights have both signs, and the format ",
                   name_of(n.how.element), " is unsigned");
    check_encodable(n.how, q.name());
    if (n.how.element.bits > 8)
      mixbit::fail(mixbit::error_id::format_value, q.name(), ": this checkpoint has no form for weights in ",
                   name_of(n.how.element));
  }

 private:
  static mixbit::tensor_quantizer<backend>& only_member(mixbit::sequential_quantizer<backend>& s) {
    if (s.members().size() != 1)
      mixbit::fail(mixbit::error_id::format_value, s.path(),
                   ": this checkpoint has no form for a sequence of quantizers");
    auto const& how = s.members().front().numerics().how;
    bool const has_form = how.element == mixbit::e4m3_element || how.element.kind == mixbit::element_kind::integer;
    if (!has_form || how.scaling != mixbit::scale_rule::ratio)
      mixbit::fail(mixbit::error_id::format_value, s.path(), ": this checkpoint has no form for ",
                   name_of(how.element), " with scales by ", name_of(how.scaling));
    return s.members().front();
  }

  static mixbit::geometry code_geometry(mixbit::format const& how, mixbit::geometry const& weight) {
    using mixbit::dtype, mixbit::packing;
    auto shape = weight.shape;
    dtype type = dtype::u8;
    if (how.layout == packing::bytes)
      type = how.element.kind == mixbit::element_kind::minifloat ? dtype::f8_e4m3 : dtype::i8;
    else if (how.layout == packing::nibbles_row_pairs)
      shape[0] = (shape[0] + 1) / 2;
    else
      shape[weight.rank - 1] = mixbit::formats::row_bytes(how.layout, how.element.bits, shape[weight.rank - 1]);
    return mixbit::dense_geometry(type, {shape.data(), static_cast<std::size_t>(weight.rank)});
  }

  static mixbit::geometry scale_geometry(mixbit::partition const& groups) {
    return mixbit::dense_geometry(mixbit::dtype::f32, {groups.groups.data(), static_cast<std::size_t>(groups.rank)});
  }

  backend& device_;
  std::deque<std::vector<std::uint8_t>> memory_;  // a deque: what tensors point to stays where it is
  std::vector<mixbit::named_tensor> tensors_;
  mixbit::safetensors_metadata metadata_;
};

}  // namespace

void require_forms(quantized_model& model, mixbit::search<backend> const& search) {
  auto const modules = model.modules();
  for (auto const& f : search.formats())
    for (auto const& module : modules) {
      auto recipe = mixbit::search_recipe(model, f.config, module);
      try {
        checkpoint::require_form(recipe);
      } catch (mixbit::error const& e) {
        mixbit::fail(e.id(), f.config.name, ": ", e.message());
      }
    }
}

void write_checkpoint(std::filesystem::path const& path, quantized_model& model, network& net) {
  checkpoint file{model.device()};
  for (auto const& module : model.modules()) {
    auto& s = *module.slots->shared_site();
    if (s.folded)
      mixbit::fail(mixbit::error_id::state_folded, module.name,
                   ": fold_weight has replaced this weight; export before folding");
    auto* const weight = s.recipes.empty() ? nullptr : s.quantizers().find(mixbit::quantizer_role::weight);
    auto* const input = s.recipes.empty() ? nullptr : s.quantizers().find(mixbit::quantizer_role::input);
    if (!s.recipes.empty()) checkpoint::require_form(s.quantizers());
    if (weight != nullptr) file.add_encoded(module.name + ".weight", source_weight(module), *weight);
    else file.add(module.name + ".weight", canonical_weight(module));
    if (input != nullptr) file.add_scale(module.name + ".input_scale", *input);
  }
  net.for_each_parameter([&](std::string const& name, auto& p) {
    if (name.ends_with(".bias")) file.add(name, mixbit::read_view(p.value));
  });
  file.write(path);
}

}  // namespace digits
