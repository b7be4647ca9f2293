// Calibrators by name, in the one pass over a model: which quantizer gets which amax, what is shared, what is refused.
#include "mixbit/calib/default_calibrators.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <random>
#include <thread>

#include "mixbit/config/attribute_json.hpp"
#include "mixbit/model/control.hpp"
#include "support/chain.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

calibrator_config const entropy = "histogram";
calibrator_config percentile(double p, std::int64_t bins = 2048) {
  return {"histogram", {{"method", "percentile"}, {"percentile", p}, {"bins", bins}}};
}
calibrator_config const mse{"histogram", {{"method", "mse"}}};

quantizer_attribute_config int8(calibrator_config c) { return {.num_bits = 8, .calibrator = std::move(c)}; }
quantizer_attribute_config with(quantizer_attribute_config a, calibrator_config c) {
  a.calibrator = std::move(c);
  return a;
}
quantizer_attribute_config const fp8{.num_bits = {4, 3}};
quantizer_attribute_config const nvfp4{
    .num_bits = {2, 1}, .block_sizes = block_config{{{-1, 16}}, quantizer_type::dynamic_type, bit_spec{4, 3}}};

/// What the calibrator alone makes of these tensors for a quantizer of those attributes.
std::vector<float> alone(quantizer_attribute_config const& a, std::vector<plain_tensor> const& batches) {
  auto const numerics = interpret(a, policy::stored, "alone");
  std::string const name = "alone";
  cpu_backend device;
  arena scratch;
  auto const made = calibrator_registry<cpu_backend>{}.make({a.calibrator, numerics, name});
  for (auto const& x : batches)
    made->observe(device, scratch, read_view(x), numerics.groups_of(read_view(x), name), nullptr);
  return made->result(device, numerics);
}

plain_tensor const first = waves({64, 8}, 0.37f), second = waves({96, 8}, 0.11f, 3.0f);

/// Observes the largest |x| as max does, and answers with a multiple of it.
class scaled_max final : public calibrator<cpu_backend> {
 public:
  struct counts {
    int made = 0, observed = 0, results = 0;
  };
  scaled_max(double factor, counts& seen) : factor_{static_cast<float>(factor)}, seen_{seen} { ++seen.made; }
  void observe(cpu_backend& device, arena&, const_tensor_ref x, partition const& groups, data_flags* flags) override {
    ++seen_.observed;
    amax_.resize(static_cast<std::size_t>(groups.group_count()));
    device.amax({x, groups, amax_.data(), flags});
  }
  std::vector<float> result(cpu_backend&, quantizer_numerics const&) override {
    ++seen_.results;
    auto scaled = amax_;
    for (float& a : scaled) a *= factor_;
    return scaled;
  }
  bool order_matters() const override { return false; }
  std::string note() const override { return factor_ > 1 ? "it is wide" : ""; }

 private:
  float factor_;
  counts& seen_;
  std::vector<float> amax_;
};

model_options<cpu_backend> with_own(scaled_max::counts& seen) {
  model_options<cpu_backend> options;
  options.calibrators.add("scaled", [&seen](calibrator_request const& r) {
    r.config.allow({"factor"}, r.where);
    return std::make_unique<scaled_max>(r.config.number("factor", 1.0), seen);
  });
  return options;
}

std::string message_of(error_id id, quantizer_attribute_config const& a, char const* which = "mlp.up.input_quantizer") {
  chain net;
  model<cpu_backend> m{net};
  auto config = nothing_on();
  turn_on(config, which, a);
  bool ran = false;
  auto const said = error_text(id, [&] { quantize(m, config, [&] { ran = true, net.forward(first); }); });
  CHECK_FALSE(ran);
  CHECK_FALSE(net.s1.live());
  return said;
}

}  // namespace

TEST_CASE("calibrators: inputs, outputs and weights get what their calibrator finds, in one pass with max beside it") {
  chain net;
  model<cpu_backend> m{net};
  auto config = nothing_on();
  turn_on(config, "mlp.up.input_quantizer", int8(percentile(90)));
  turn_on(config, "mlp.up.output_quantizer", int8(entropy));
  turn_on(config, "mlp.down.input_quantizer", int8("max"));
  auto rows = int8(percentile(75, 200));
  rows.axis = 0;
  turn_on(config, "mlp.up.weight_quantizer", rows);
  turn_on(config, "mlp.down.weight_quantizer", int8(mse));
  int runs = 0;
  quantize(m, config, [&] { ++runs, net.forward(first), net.forward(second); });
  CHECK(runs == 1);
  CHECK(amax(net.s1, quantizer_role::input) == alone(int8(percentile(90)), {first, second}));
  std::vector<plain_tensor> const y{multiply(first, net.w1), multiply(second, net.w1)};
  CHECK(amax(net.s1, quantizer_role::output) == alone(int8(entropy), y));
  float top = 0;
  for (auto const& t : y)
    for (float const v : t.values) top = std::max(top, std::abs(v));
  CHECK(amax(net.s2, quantizer_role::input) == std::vector{top});
  CHECK(amax(net.s1, quantizer_role::weight) == alone(rows, {net.w1}));
  CHECK(amax(net.s1, quantizer_role::weight).size() == 6);
  CHECK(amax(net.s2, quantizer_role::weight) == alone(int8(mse), {net.w2}));
  CHECK(amax(net.s1, quantizer_role::input)[0] < 3.0f);
  CHECK(amax(net.s1, quantizer_role::input)[0] > 0.5f);
}

TEST_CASE("calibrators: an amax is by the method's definition, of the values themselves") {
  std::vector<float> all;
  for (auto const* t : {&first, &second})
    for (float const v : t->values) all.push_back(std::abs(v));
  std::ranges::sort(all);
  float const width = 3.0f / 2048;  // some bins: the first batch had a third of the range
  for (double const p : {50.0, 90.0, 99.0}) {
    float const found = alone(int8(percentile(p)), {first, second}).at(0);
    float const exact = all[static_cast<std::size_t>(std::ceil(p / 100 * static_cast<double>(all.size()))) - 1];
    CHECK(found <= exact + width);
    CHECK(found >= exact - width);
  }
  // mse of a format is the least over centres that the format's own cast gives
  for (auto const& a : {int8(mse), with(fp8, mse), with({.num_bits = 3}, mse)}) {
    float const best = alone(a, {first}).at(0);
    auto const error_of = [&](float amax) {
      tensor_quantizer<cpu_backend> q{"q", a, policy::stored};
      cpu_backend device;
      arena scratch;
      plain_tensor y = first;
      q.set_amax(device, q.grouping(read_view(y)), {amax});
      q.quantize(device, scratch, read_view(first), write_view(y));
      double sum = 0;
      for (std::size_t i = 0; i < y.values.size(); ++i) sum += std::pow(double{y.values[i]} - first.values[i], 2);
      return sum;
    };
    for (float const factor : {0.5f, 0.8f, 1.3f, 2.0f}) CHECK(error_of(best) <= error_of(best * factor) * 1.02);
  }
}

TEST_CASE("calibrators: a tensor on its own, and a rotated or scaled input, is observed as the cast sees it") {
  struct host {
    quantizer_slots<cpu_backend> slots;
    void walk(module_visitor<cpu_backend> const& visit) { visit(module("attn", "attention", slots)); }
  } h;
  model<cpu_backend> attention{h};
  auto config = nothing_on();
  turn_on(config, "attn.q_bmm_quantizer", int8(percentile(80)));
  quantize(attention, config, [&] {
    plain_tensor x = first;
    apply(h.slots, x, 0);
    CHECK(x.values == first.values);
  });
  auto& q = h.slots.shared_site()->quantizers().quantizers[0].members().front();
  cpu_backend device;
  CHECK(q.amax(device) == alone(int8(percentile(80)), {first}));

  chain net;
  model<cpu_backend> m{net};
  auto rotated = int8(percentile(80));
  rotated.rotate = true;
  auto one = nothing_on();
  turn_on(one, "mlp.up.input_quantizer", rotated);
  quantize(m, one, [&] { net.forward(first); });
  plain_tensor seen = first;
  device.hadamard({read_view(first), write_view(seen), 8});
  CHECK(amax(net.s1, quantizer_role::input) == alone(int8(percentile(80)), {seen}));

  std::vector<float> const factors{1, 2, 3, 4, 5, 6, 7, 8};
  auto* const input = net.s1.shared_site()->quantizers().find(quantizer_role::input);
  input->set_pre_quant_scale(device, factors);
  calibrate(m, {}, [&] { net.forward(first); });
  plain_tensor scaled = first;
  for (std::size_t i = 0; i < scaled.values.size(); ++i) scaled.values[i] *= factors[i % 8];
  device.hadamard({read_view(scaled), write_view(seen), 8});
  CHECK(amax(net.s1, quantizer_role::input) == alone(int8(percentile(80)), {seen}));
}

TEST_CASE("calibrators: recipes that see the same data with the same calibrator share one, each with its own result") {
  plain_tensor bell{2000, 8};  // fewer bits clip more of it
  std::mt19937 random{5};
  std::normal_distribution<float> normal;
  for (float& v : bell.values) v = normal(random);
  chain net;
  scaled_max::counts seen;
  model<cpu_backend> m{net, with_own(seen)};
  auto const modules = m.modules();
  auto& recipes = net.s1.shared_site()->recipes;
  auto const install = [&](quantizer_attribute_config const& a) {
    auto config = nothing_on();
    turn_on(config, "mlp.up.input_quantizer", a);
    recipes.push_back(std::move(configure(m, modules, config).recipes[0]));
  };
  calibrator_config const own{"scaled", {{"factor", 0.5}}};
  for (int const bits : {8, 4, 6}) install({.num_bits = bits, .calibrator = own});
  for (int const bits : {8, 4}) install({.num_bits = bits, .calibrator = entropy});
  install({.num_bits = 8});
  install({.num_bits = 8, .calibrator = {"scaled", {{"factor", 0.25}}}});
  net.s1.shared_site()->refresh();
  max_calibrate(m, {modules[0]}, [&] {
    seen = {};
    apply(net.s1, bell, net.w1, multiply);
    apply(net.s1, second, net.w1, multiply);
  });
  CHECK(seen.observed == 4);  // two calibrators of that name, two batches
  CHECK(seen.results == 4);
  auto const input = [&](std::size_t recipe) {
    cpu_backend device;
    for (auto& q : recipes[recipe].quantizers)
      if (q.enabled()) return q.members().front().amax(device);
    return std::vector<float>{};
  };
  float const top = input(5).at(0);
  for (std::size_t const i : {0, 1, 2}) CHECK(input(i) == std::vector{top * 0.5f});
  CHECK(input(6) == std::vector{top * 0.25f});
  CHECK(input(3) == alone(int8(entropy), {bell, second}));
  CHECK(input(4) == alone({.num_bits = 4, .calibrator = entropy}, {bell, second}));
  CHECK(input(3)[0] > input(4)[0]);
}

TEST_CASE("calibrators: a user's own is used by its name in a config, from C++ and from JSON, also for weights") {
  scaled_max::counts seen;
  chain net;
  model<cpu_backend> m{net, with_own(seen)};
  auto config = nothing_on();
  turn_on(config, "*input_quantizer",
          attributes_from_json(config_json::parse(R"({"calibrator": {"name": "scaled", "factor": 2.0}})")));
  turn_on(config, "*weight_quantizer", int8({"scaled", {{"factor", 0.5}}}));
  auto const result = quantize(m, config, [&] { net.forward(first); });
  float top = 0;
  for (float const v : first.values) top = std::max(top, std::abs(v));
  CHECK(amax(net.s1, quantizer_role::input) == std::vector{2 * top});
  float heaviest = 0;
  for (float const v : net.w1.values) heaviest = std::max(heaviest, std::abs(v));
  CHECK(amax(net.s1, quantizer_role::weight) == std::vector{heaviest / 2});
  CHECK(std::ranges::count(result.notes, "mlp.up.input_quantizer: it is wide") == 1);
  CHECK(std::ranges::count(result.notes, "mlp.up.weight_quantizer: it is wide") == 0);
  calibrate(m, {}, [&] { net.forward(second); });  // a new one each time
  CHECK(amax(net.s1, quantizer_role::input)[0] > 2 * top);
}

TEST_CASE("calibrators: a name that nobody registered, and one that is taken, are refused; the model is as it was") {
  auto const unknown = error_id::config_unknown_field;
  CHECK(says(message_of(unknown, int8("mine")), "mlp.up.input_quantizer: no calibrator is named 'mine'",
             "known are max, histogram, nvfp4_act_headroom"));
  scaled_max::counts seen;
  auto options = with_own(seen);
  CHECK(options.calibrators.known() == "max, histogram, nvfp4_act_headroom, scaled");
  auto const add = [&](char const* name) { options.calibrators.add(name, [](auto const&) { return nullptr; }); };
  for (char const* const taken : {"scaled", "max", "histogram"})
    CHECK(says(error_text(error_id::state_duplicate, [&] { add(taken); }), taken));
  CHECK(says(error_text(error_id::config_value, [&] { add("entropy"); }), "'entropy' is a method of the histogram"));
  CHECK(says(error_text(error_id::config_value, [&] { add(""); }), "name"));
  CHECK(says(error_text(error_id::config_value, [&] { options.calibrators.add("empty", {}); }), "'empty'"));
  add("nothing");
  chain net;
  model<cpu_backend> m{net, std::move(options)};
  auto const refused = [&](error_id id, calibrator_config const& c) {
    auto config = nothing_on();
    turn_on(config, "mlp.up.weight_quantizer", int8(c));
    return error_text(id, [&] { quantize(m, config); });
  };
  CHECK(says(refused(unknown, {"scaled", {{"faktor", 2.0}}}), "mlp.up.weight_quantizer: ", "'faktor'", "close: fac"));
  CHECK(says(refused(error_id::config_value, "nothing"), "mlp.up.weight_quantizer: ", "'nothing' made none"));
  CHECK(says(refused(error_id::format_amax, {"scaled", {{"factor", -1.0}}}), "mlp.up.weight_quantizer: amax[0] is -"));
  CHECK_FALSE(net.s1.live());
}

TEST_CASE("calibrators: a method that the format does not have is refused by the quantizer's name before any data") {
  auto const id = error_id::format_value;
  CHECK(says(message_of(id, with(fp8, entropy)), "mlp.up.input_quantizer: ", "entropy is for integers", "mse"));
  CHECK(says(message_of(id, with(nvfp4, entropy)), "mlp.up.input_quantizer: ", "entropy is for integers"));
  CHECK(says(message_of(id, with(nvfp4, mse)), "mlp.up.input_quantizer: ", "method mse", "percentile"));
  auto blocks = int8(percentile(99));
  blocks.block_sizes = block_config{{{-1, 4}}};
  CHECK(says(message_of(id, blocks, "mlp.down.weight_quantizer"), "mlp.down.weight_quantizer: ", "blocks of 4"));
  CHECK(says(message_of(id, int8("nvfp4_act_headroom")), "mlp.up.input_quantizer: ", "NVFP4", "not for int8"));
}

TEST_CASE("calibrators: NaN and infinities are left out, counted and named; zeros have amax 0") {
  chain net;
  model<cpu_backend> m{net};
  auto config = nothing_on();
  turn_on(config, "*input_quantizer", int8(percentile(95)));
  plain_tensor bad = first;
  bad.values[3] = std::numeric_limits<float>::quiet_NaN();
  bad.values[9] = std::numeric_limits<float>::infinity();
  auto const result = quantize(m, config, [&] {
    apply(net.s1, bad, net.w1, multiply);
    apply(net.s1, first, net.w1, multiply);
    apply(net.s2, plain_tensor{3, 6}, net.w2, multiply);
  });
  CHECK(std::ranges::count(result.notes, "mlp.up.input_quantizer: 2 NaN or infinite value(s) were left out of the "
                                         "calibration") == 1);
  CHECK(amax(net.s1, quantizer_role::input)[0] > 0.9f);
  CHECK(amax(net.s2, quantizer_role::input) == std::vector{0.0f});
}

TEST_CASE("calibrators: the user hears of bins that were made one, and of an amax of 0 that hides values") {
  chain net;
  model<cpu_backend> m{net};
  auto config = nothing_on();
  turn_on(config, "mlp.up.input_quantizer", int8(percentile(100)));
  turn_on(config, "mlp.down.input_quantizer", int8(percentile(60)));
  plain_tensor spike{10, 6};
  spike.values[17] = 2.0f;
  auto const result = quantize(m, config, [&] {
    apply(net.s1, first, net.w1, multiply);
    apply(net.s1, waves({3, 8}, 0.3f, 1e6f), net.w1, multiply);
    apply(net.s2, spike, net.w2, multiply);
  });
  auto const told = [&](char const* start, char const* part) {
    return std::ranges::count_if(result.notes,
                                 [&](auto const& n) { return n.starts_with(start) && n.find(part) != n.npos; });
  };
  CHECK(told("mlp.up.input_quantizer: the range of its histogram grew from", "bins were made one") == 1);
  CHECK(told("mlp.down.input_quantizer: the amax of 1 group(s) is 0", "lowest bin") == 1);
}

TEST_CASE("calibrators: a histogram depends on the order of batches, so two threads that show it are refused") {
  chain net;
  model<cpu_backend> m{net};
  auto config = nothing_on();
  turn_on(config, "mlp.up.input_quantizer", int8(entropy));
  auto const run = [&] {
    std::string said;
    quantize(m, config, [&] {
      net.forward(first);
      std::thread{[&] {
        workspace<cpu_backend> own;
        said = error_text(error_id::state_busy, [&] { apply(own, net.s1, second, net.w1, multiply); });
      }}.join();
    });
    return said;
  };
  CHECK(says(run(), "mlp.up.input_quantizer: its calibrator", "two threads"));
}

TEST_CASE("calibrators: batches of another number of groups are refused, and nothing but empty ones is no data") {
  chain net;
  model<cpu_backend> m{net};
  auto rows = int8(percentile(90));
  rows.axis = 0;
  auto config = nothing_on();
  turn_on(config, "mlp.up.input_quantizer", rows);
  auto const other = error_text(error_id::tensor_shape, [&] {
    quantize(m, config, [&] { net.forward(first), net.forward(second); });
  });
  CHECK_MESSAGE(says(other, "mlp.up.input_quantizer: calibrated on 64x1 groups, but this tensor has 96x1"), other);
  auto const empty = error_text(error_id::state_not_calibrated, [&] {
    quantize(m, config, [&] { apply(net.s1, plain_tensor{0, 8}, net.w1, multiply); });
  });
  CHECK(says(empty, "1 static quantizer(s) saw no data: mlp.up.input_quantizer"));
  CHECK_FALSE(net.s1.live());
}
