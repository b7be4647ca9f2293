#include "mixbit/quantizer/workspace.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "mixbit/model/quantize.hpp"
#include "support/checkpoint_host.hpp"
#include "support/error_text.hpp"

using namespace mixbit;
using namespace mixbit::test;

namespace {

struct layer {
  plain_tensor weight = waves({16, 24}, 0.7f);
  quantizer_slots<cpu_backend> slots;
  template <class Visit>
  void walk(Visit&& visit) {
    visit(linear("layer", slots, weight));
  }
};

quantize_config int8() {
  quantize_config config = nothing_on();
  turn_on(config, "layer.input_quantizer", {});
  turn_on(config, "layer.weight_quantizer", {});
  return config;
}

/// Runs f(0..3), each on a thread of its own, all let go at once.
template <class F>
void on_four_threads(F f) {
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      ++ready;
      while (ready < 4) std::this_thread::yield();
      f(t);
    });
  for (auto& t : threads) t.join();
}

}  // namespace

TEST_CASE("workspace: a second thread is refused while one is inside (rule 10)") {
  workspace<cpu_backend> ws;
  workspace_lock<cpu_backend> const held{ws};
  std::string text;
  std::thread{[&] { text = error_text(error_id::state_busy, [&] { workspace_lock<cpu_backend>{ws}; }); }}.join();
  CHECK(says(text, "workspace", "two threads"));
  workspace_lock<cpu_backend> const nested{ws};  // the same thread may
}

TEST_CASE("workspace: is free again after its last lock, also after an exception, on any thread") {
  workspace<cpu_backend> ws;
  {
    workspace_lock<cpu_backend> const outer{ws};
    ws.scratch.allocate(64);
    try {
      workspace_lock<cpu_backend> const inner{ws};
      ws.scratch.allocate(64);
      throw 1;
    } catch (int) {
    }
    CHECK(ws.scratch.used() == 64);
  }
  CHECK(ws.scratch.used() == 0);
  bool entered = false;
  std::thread{[&] {
    workspace_lock<cpu_backend> const held{ws};
    entered = true;
  }}.join();
  CHECK(entered);
}

TEST_CASE("workspace: four threads on one model are refused while another is inside its op, and change nothing") {
  layer l;
  model<cpu_backend> m{l};
  plain_tensor const x = waves({5, 24}, 0.3f);
  quantize(m, int8(), [&] { apply(l.slots, x, l.weight, multiply); });
  plain_tensor const expected = apply(l.slots, x, l.weight, multiply);
  std::atomic<int> refused{0};
  apply(l.slots, x, l.weight, [&](plain_tensor const& a, plain_tensor const& b) {
    on_four_threads([&](int) {
      refused += says(error_text(error_id::state_busy, [&] { apply(l.slots, x, l.weight, multiply); }), "workspace");
    });
    return multiply(a, b);
  });
  CHECK(refused == 4);
  CHECK(apply(l.slots, x, l.weight, multiply).values == expected.values);
}

TEST_CASE("calibration: a second thread that shows a static bias data is refused, since its value has an order") {
  struct host {
    layer l;
    quantizer_slots<cpu_backend> attention;
    void walk(module_visitor<cpu_backend> const& visit) {
      l.walk(visit);
      visit(module("attn", "attention", attention));
    }
    quantizer_slots<cpu_backend>& slots(bool of_tensor) { return of_tensor ? attention : l.slots; }
    void show(plain_tensor batch, bool of_tensor) {
      workspace<cpu_backend> ws;
      if (of_tensor) apply(ws, attention, batch, 1);
      else apply(ws, l.slots, batch, l.weight, multiply);
    }
  };
  plain_tensor const x = waves({5, 24}, 0.3f), big = waves({5, 24}, 0.4f);
  for (bias_method const method : {bias_method::mean, bias_method::max_min})
    for (bool const of_tensor : {false, true}) {
      host h;
      model<cpu_backend> m{h};
      quantizer_attribute_config affine;
      affine.bias = bias_config{{-2}, quantizer_type::static_type, method};
      std::string const name = of_tensor ? "attn.k_bmm_quantizer" : "layer.input_quantizer";
      quantize_config config = nothing_on();
      turn_on(config, name, affine);
      auto const show = [&](plain_tensor const& batch) { h.show(batch, of_tensor); };
      auto const calibrated = [&](auto const& loop) {
        quantize(m, config, loop);
        cpu_backend device;
        auto& q = h.slots(of_tensor).shared_site()->quantizers().quantizers[of_tensor ? 1 : 0].members().front();
        return std::pair{q.bias()->values(), q.amax(device)};
      };
      auto const twice = [&] { show(x), show(x); };  // one thread's order is one order
      auto const elsewhere = [](auto const& call) {
        std::string text;
        std::thread{[&] { text = error_text(error_id::state_busy, call); }}.join();
        return text;
      };
      auto const expected = calibrated(twice);
      std::string refused;
      CHECK(calibrated([&] { twice(), refused = elsewhere([&] { show(big); }); }) == expected);
      CHECK(says(refused, name + ": ", "bias", "two threads"));
      CHECK(elsewhere([&] { calibrated(twice); }) == "(no error)");  // all of it on another thread
    }
}

TEST_CASE("workspace: one a thread runs clean and gives the bits of one thread (rule 10)") {
  layer l;
  model<cpu_backend> m{l};
  plain_tensor const x = waves({5, 24}, 0.3f);
  plain_tensor const big = waves({5, 24}, 0.4f);
  auto const loop = [&] {  // calibration too
    on_four_threads([&](int t) {
      workspace<cpu_backend> ws;
      apply(ws, l.slots, t == 2 ? big : x, l.weight, multiply);
    });
  };
  for (bool cached : {false, true}) {
    quantize(m, int8(), loop);
    l.slots.cache_weight(cached);
    std::vector<plain_tensor> results(4, plain_tensor{0, 0});
    on_four_threads([&](int t) {  // the first live calls, so each may probe
      workspace<cpu_backend> ws;
      for (int i = 0; i < 10; ++i) results[static_cast<std::size_t>(t)] = apply(ws, l.slots, x, l.weight, multiply);
    });
    plain_tensor const expected = apply(l.slots, x, l.weight, multiply);
    for (auto const& r : results) CHECK(r.values == expected.values);
  }
  float const top = std::max(*std::max_element(x.values.begin(), x.values.end()),
                             *std::max_element(big.values.begin(), big.values.end()));
  cpu_backend device;
  auto& input = *l.slots.shared_site()->quantizers().find(quantizer_role::input);
  CHECK(input.members()[0].amax(device)[0] >= top);
}

TEST_CASE("workspace: threads that train on one model, each with a workspace, get the bits of one thread") {
  layer l;
  model<cpu_backend> m{l};
  quantize_config config = nothing_on();
  quantizer_attribute_config clipped;
  clipped.pass_through_bwd = false;
  turn_on(config, "layer.input_quantizer", clipped);
  turn_on(config, "layer.weight_quantizer", clipped);
  plain_tensor const narrow = waves({5, 24}, 0.3f);
  quantize(m, config, [&] { apply(l.slots, narrow, l.weight, multiply); });

  struct gradients {
    plain_tensor xq{0, 0}, wq{0, 0}, x{0, 0}, w{0, 0};
  };
  auto const step = [&](plain_tensor const& x, auto&... ws) {  // a backward, with a workspace or with the model's own
    gradients g;
    lend(ws..., l.slots, x, l.weight, [&](plain_tensor const& xq, plain_tensor const& wq) { g.xq = xq, g.wq = wq; });
    g.x = waves({5, 24}, 1.3f);
    g.w = waves({16, 24}, 1.7f);
    input_backward(ws..., l.slots, x, g.x);
    weight_backward(ws..., l.slots, l.weight, g.w);
    return g;
  };
  std::vector<plain_tensor> batches;
  for (float const scale : {0.5f, 1.5f, 2.0f, 3.0f}) {
    batches.push_back(waves({5, 24}, 0.4f));
    for (float& v : batches.back().values) v *= scale;
  }
  for (bool const cached : {false, true}) {
    l.slots.cache_weight(cached);
    std::vector<gradients> results(4);
    std::atomic<int> refused{0};
    on_four_threads([&](int t) {
      workspace<cpu_backend> ws;
      try {
        for (int i = 0; i < 20; ++i) {
          apply(ws, l.slots, batches[static_cast<std::size_t>(t)], l.weight, multiply);
          results[static_cast<std::size_t>(t)] = step(batches[static_cast<std::size_t>(t)], ws);
        }
      } catch (error const&) {
        ++refused;
      }
    });
    CHECK(refused == 0);
    for (std::size_t t = 0; t < 4; ++t) {
      gradients const expected = step(batches[t]);
      CHECK(results[t].xq.values == expected.xq.values);
      CHECK(results[t].wq.values == expected.wq.values);
      CHECK(results[t].x.values == expected.x.values);
      CHECK(results[t].w.values == expected.w.values);
    }
    CHECK(results[3].x.values != waves({5, 24}, 1.3f).values);  // something was masked
    CHECK(results[3].xq.values != batches[3].values);
  }
}

TEST_CASE("workspace: one of the caller's lets another thread train while the model's own is held") {
  layer l;
  model<cpu_backend> m{l};
  plain_tensor const x = waves({5, 24}, 0.3f);
  quantize(m, int8(), [&] { apply(l.slots, x, l.weight, multiply); });
  workspace_lock<cpu_backend> const held{m.scratch()};
  std::string own, shared;
  std::thread{[&] {
    workspace<cpu_backend> ws;
    plain_tensor grad = x, grad_w = l.weight;
    own = error_text(error_id::state_busy, [&] {
      lend(ws, l.slots, x, l.weight, [](plain_tensor const&, plain_tensor const&) {});
      input_backward(ws, l.slots, x, grad);
      weight_backward(ws, l.slots, l.weight, grad_w);
    });
    shared = error_text(error_id::state_busy, [&] { input_backward(l.slots, x, grad); });
  }}.join();
  CHECK(own == "(no error)");
  CHECK(says(shared, "workspace"));
}

TEST_CASE("workspace: a trial on one thread is none on another, so that layers save what they must (rule 6)") {
  layer l;
  model<cpu_backend> m{l};
  plain_tensor const x = waves({5, 24}, 0.3f);
  quantize(m, int8(), [&] { apply(l.slots, x, l.weight, multiply); });
  l.slots.shared_site()->probed = false;
  bool inside = false, elsewhere = true;
  apply(l.slots, x, l.weight, [&](plain_tensor const& a, plain_tensor const& b, pass p) {
    if (p == pass::trial) {
      inside = l.slots.in_trial();
      std::thread{[&] { elsewhere = l.slots.in_trial(); }}.join();
    }
    return multiply(a, b);
  });
  CHECK(inside);
  CHECK_FALSE(elsewhere);
}

TEST_CASE("workspace: the limit on scratch memory is refused by name, and the model stays usable") {
  layer l;
  model_options<cpu_backend> options;
  options.scratch_limit = 1 << 16;
  model<cpu_backend> m{l, options};
  plain_tensor const x = waves({5, 24}, 0.3f), huge = waves({40000, 24}, 0.3f);
  quantizer_attribute_config by_token;
  by_token.type = quantizer_type::dynamic_type;
  by_token.axis = 0;
  quantize_config config = nothing_on();
  turn_on(config, "layer.input_quantizer", by_token);
  quantize(m, config);
  plain_tensor const expected = apply(l.slots, x, l.weight, multiply);
  auto const text = error_text(error_id::memory_exhausted, [&] { apply(l.slots, huge, l.weight, multiply); });
  CHECK(says(text, "scratch", "65536"));
  CHECK(apply(l.slots, x, l.weight, multiply).values == expected.values);
}
