// Holds somebody's quantization kernel to the reference, by files: what usage_text says.
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "../../run_program.hpp"
#include "claim.hpp"
#include "files.hpp"
#include "mixbit/io/safetensors_writer.hpp"
#include "mixbit/io/staged_output.hpp"
#include "mixbit/reference/scalar.hpp"
#include "mixbit/validate/check.hpp"
#include "mixbit/validate/json.hpp"
#include "mixbit/validate/text.hpp"

namespace conformance {
namespace {

using namespace mixbit;

/// The sources that the command line names.
struct sources {
  tensor_source input;
  std::optional<tensor_source> output, codes, scales, tensor_scale, amax, tensor_amax;

  explicit sources(options const& o) : input{o.input} {
    auto const open = [](std::optional<tensor_source>& source, std::string const& where) {
      if (!where.empty()) source.emplace(where);
    };
    open(output, o.output);
    open(codes, o.codes);
    open(scales, o.scales);
    open(tensor_scale, o.tensor_scale);
    open(amax, o.amax);
    open(tensor_amax, o.tensor_amax);
  }
};

std::vector<float> floats_of(const_tensor_ref const& t, reference::scalar& cpu, std::string const& where) {
  if (!is_compute(t.type))
    fail(error_id::file_content, where, " is ", name_of(t.type), ", not float32, float16 or bfloat16");
  return validate::read_floats(cpu, t);
}

float number_of(const_tensor_ref const& t, reference::scalar& cpu, std::string const& where) {
  auto const all = floats_of(t, cpu, where);
  if (all.size() != 1) fail(error_id::file_content, where, " has ", all.size(), " elements, not one");
  return all.front();
}

validate::sample sample_of(reference::scalar& cpu, sources const& from, claim const& c, std::string const& name) {
  bool const only = from.input.tensors().size() == 1;
  std::string const where = in_quotes(name);
  validate::results found{from.input.tensors().at(name)};
  if (from.output) found.values = from.output->of(name, only);
  if (from.codes) found.codes = from.codes->of(name, only);
  if (from.scales) found.scales = from.scales->of(name, only);
  if (from.tensor_scale)
    found.tensor_scale = number_of(from.tensor_scale->of(name, only), cpu, where + ": the tensor scale");
  validate::expectation expected{c.numerics.how, c.groups_of(found.x, where)};
  std::vector<float> amax;
  if (from.amax) amax = floats_of(from.amax->of(name, only), cpu, where + ": amax");
  else if (c.numerics.amax_from == amax_source::constant && !c.dynamic())
    amax.assign(static_cast<std::size_t>(expected.groups.group_count()), c.numerics.constant_amax);
  if (from.amax && amax.empty()) fail(error_id::file_content, where, ": amax has no elements");
  expected.amax = amax;
  expected.dynamic = c.dynamic();
  if (from.tensor_amax)
    expected.tensor_amax = number_of(from.tensor_amax->of(name, only), cpu, where + ": the tensor's amax");
  return validate::make_sample(cpu, found, expected, where);
}

/// ModelOpt's tensor classes hold their scales in the type of the tensor; so do claims that name no other.
void take_scale_type(claim& c, options const& o, sources const& from) {
  format& how = c.numerics.how;
  dtype const type = from.input.tensors().begin()->second.type;
  for (auto const& [name, tensor] : from.input.tensors())
    if (tensor.type != type)
      fail(error_id::file_content, in_quotes(name), " is ", name_of(tensor.type), " and an input before it ",
           name_of(type), "; compare them apart");
  if (how.numerics == policy::modelopt_pack && how.scaling == scale_rule::ratio && !o.scale_type && is_compute(type))
    how.scale_type = type;
}

int compare(options const& o) {
  claim c = claim_of(o);
  sources const from{o};
  take_scale_type(c, o, from);
  reference::scalar cpu;
  std::vector<validate::sample> samples;
  for (auto const& [name, tensor] : from.input.tensors()) samples.push_back(sample_of(cpu, from, c, name));
  validate::report const r = validate::compare(cpu, samples, c.numerics.how);
  if (!o.json.empty()) write_json_file(o.json, validate::to_json(r));
  std::fputs(validate::to_text(r).c_str(), stdout);
  return r.conformant() ? 0 : 1;
}

/// Inputs for the kernel, whole or not at all.
int write_vectors(options const& o) {
  claim const c = claim_of(o);
  std::vector<std::string> names;
  std::vector<geometry> shapes;
  std::vector<std::vector<std::byte>> memory;
  auto const groups = [&](geometry const& g) { return c.groups_of(g, o.format); };
  validate::for_vectors(c.numerics.how, o.type, groups, [&](auto const& vector, partition const&) {
    names.push_back(vector.name + "_" + std::to_string(vector.shape.shape[0]) + "x" +
                    std::to_string(vector.shape.shape[1]));
    shapes.push_back(vector.shape);
    memory.push_back(validate::typed(vector.x, o.type));
  });
  std::vector<named_tensor> tensors;
  for (std::size_t i = 0; i < names.size(); ++i) tensors.push_back({names[i], {shapes[i], memory[i].data()}});
  staged_output out{o.vectors};
  write_safetensors(out.path("inputs.safetensors"), tensors);
  if (o.type != dtype::bf16)  // npy has no name for it
    for (named_tensor const& t : tensors) write_npy(out.path("inputs/" + t.name + ".npy"), t.tensor);
  out.commit();
  std::printf("%zu inputs written to %s\n", tensors.size(), out.folder().c_str());
  return 0;
}

int run(options const& o) { return o.vectors.empty() ? compare(o) : write_vectors(o); }

}  // namespace
}  // namespace conformance

int main(int argc, char** argv) {
  return run_program("conformance", [&] {
    auto const options = conformance::parse_options(argc, argv);
    return options.help ? int{std::fputs(conformance::usage_text, stdout) < 0} : conformance::run(options);
  });
}
