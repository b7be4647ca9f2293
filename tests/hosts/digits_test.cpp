// The xtensor host's own arithmetic against finite differences and by hand, its data file and its command line.
#include <doctest/doctest.h>

#include <cmath>

#include "digits/options.hpp"
#include "support/digits_data.hpp"
#include "support/error_text.hpp"
#include "support/temporary_folder.hpp"

using namespace digits;
using namespace digits_test;
using mixbit::error_id;
using mixbit::test::error_text;
using mixbit::test::says;

namespace {

template <class Tensor>
double inner(Tensor const& a, Tensor const& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{a.data()[i]} * b.data()[i];
  return sum;
}

/// Checks `gradient` of f in every element of x by central differences. For an f that is linear in x any step is
/// exact but for rounding.
template <class Tensor, class F>
void check_gradient(char const* what, Tensor& x, Tensor const& gradient, F const& f) {
  CAPTURE(what);
  REQUIRE(gradient.shape() == x.shape());
  constexpr float step = 0.125f;
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    float const kept = x.data()[i];
    x.data()[i] = kept + step;
    double const up = f();
    x.data()[i] = kept - step;
    double const slope = (up - f()) / (2 * step);
    x.data()[i] = kept;
    worst = std::max(worst, std::abs(slope - gradient.data()[i]));
    largest = std::max(largest, std::abs(slope));
  }
  CHECK(largest > 0.1);
  CHECK(worst < 1e-4 * (1 + largest));
}

/// The gradients of Σ weights · layer(x) by x, the layer's weight and its bias.
template <class Layer, class Tensor>
void check_layer(Layer& layer, Tensor x, random_source& random) {
  for (float& b : layer.bias.value.storage()) b = random.uniform(1.0f);
  auto const grad_y = random_tensor<Tensor>(layer.forward(x).shape(), random);
  layer.weight.start_training();
  layer.bias.start_training();
  auto const grad_x = layer.backward(grad_y);
  auto const f = [&] { return inner(layer.forward(x), grad_y); };
  check_gradient("x", x, grad_x, f);
  check_gradient("weight", layer.weight.value, layer.weight.gradient, f);
  check_gradient("bias", layer.bias.value, layer.bias.gradient, f);
}

}  // namespace

TEST_SUITE("digits: arithmetic") {
  TEST_CASE("gradients of a convolution, with stride and padding") {
    struct {
      conv_window window;
      tensor4::shape_type input;
    } const cases[] = {{{3, 1, 1}, {2, 3, 5, 4}}, {{3, 2, 1}, {2, 3, 6, 5}}, {{3, 2, 0}, {2, 2, 7, 6}},
                       {{1, 1, 0}, {3, 4, 2, 3}}, {{2, 3, 2}, {1, 2, 5, 4}}};
    random_source random{3};
    for (auto const& c : cases) {
      CAPTURE(c.window.kernel);
      CAPTURE(c.window.stride);
      conv2d layer{c.input[1], 4, c.window, random};
      check_layer(layer, random_tensor<tensor4>(c.input, random), random);
    }
  }

  TEST_CASE("a convolution by hand") {
    random_source random{1};
    conv2d layer{1, 1, {3, 2, 1}, random};
    for (std::size_t i = 0; i < 9; ++i) layer.weight.value.data()[i] = static_cast<float>(i + 1);
    layer.bias.value(0) = 100;
    tensor4 const x(tensor4::shape_type{1, 1, 3, 3}, 1.0f);
    auto const y = layer.forward(x);
    REQUIRE(y.shape() == tensor4::shape_type{1, 1, 2, 2});
    CHECK(y(0, 0, 0, 0) == 100 + 5 + 6 + 8 + 9);
    CHECK(y(0, 0, 0, 1) == 100 + 4 + 5 + 7 + 8);
    CHECK(y(0, 0, 1, 0) == 100 + 2 + 3 + 5 + 6);
    CHECK(y(0, 0, 1, 1) == 100 + 1 + 2 + 4 + 5);
  }

  TEST_CASE("gradients of a linear layer and of ReLU") {
    random_source random{4};
    linear layer{11, 7, random};
    check_layer(layer, random_tensor<matrix>({5, 11}, random), random);
    matrix const x{{-1.0f, 2.0f, 0.0f}}, grad{{5.0f, 6.0f, 7.0f}};
    CHECK(relu(x) == matrix{{0.0f, 2.0f, 0.0f}});
    CHECK(relu_backward(relu(x), grad) == matrix{{0.0f, 6.0f, 0.0f}});
  }

  TEST_CASE("the network's gradient along itself") {
    network net{5};
    auto const batch = batches(data().training, 16, 1).front();
    trainer const t{net, 1};  // gradients are on while it lives
    forward_and_backward(net, batch);
    double squares = 0;
    net.for_each_parameter([&](auto const&, auto& p) { squares += inner(p.gradient, p.gradient); });
    auto const loss_at = [&](float step) {
      net.for_each_parameter([&](auto const&, auto& p) { p.value += step * p.gradient; });
      double const loss = cross_entropy(net.logits(batch.pixels), batch.labels);
      net.for_each_parameter([&](auto const&, auto& p) { p.value -= step * p.gradient; });
      return loss;
    };
    float const step = 1e-3f;
    CHECK(squares > 0.1);
    CHECK((loss_at(step) - loss_at(-step)) / (2 * step) == doctest::Approx(squares).epsilon(0.01));
  }

  TEST_CASE("training reaches the accuracy, the same way every time") {
    network net{1}, twin{1}, other{2};
    trainer t{net, 1}, u{twin, 1};
    CHECK_FALSE(same_bits(net.fc1.weight.value, other.fc1.weight.value));
    double const first = t.epoch(data().training);
    CHECK(first == u.epoch(data().training));
    CHECK(same_bits(net.conv1.weight.value, twin.conv1.weight.value));
    for (int e = 0; e < 5; ++e) t.epoch(data().training);
    auto const result = evaluate(net, data().test);
    CHECK(result.accuracy > 0.95);
    CHECK(result.loss < 0.2);
  }
}

TEST_SUITE("digits: data") {
  TEST_CASE("the file as it is") {
    CHECK(data().training.size() == 1438);
    CHECK(data().test.size() == 359);
    CHECK(data().training.labels[1] == 1);
    CHECK(data().training.pixels(0, 0, 0, 3) == 13.0f / 16);
    CHECK(data().test.labels[0] == 4);
    CHECK(data().test.pixels(0, 0, 0, 3) == 1.0f / 16);
  }

  TEST_CASE("a broken file is refused, naming file and line") {
    mixbit::test::temporary_folder const folder;
    auto const file = folder / "broken.csv";
    std::string header = "label", image = "3";
    for (int p = 0; p < 64; ++p) header += ",p" + std::to_string(p), image += ",16";
    auto const text_for = [&](std::string const& content) {
      mixbit::test::write_text(file, content);
      return error_text(error_id::file_format, [&] { read_digits(file); });
    };
    mixbit::test::write_text(file, header + "\r\n" + image + "\r\n");
    CHECK(read_digits(file).pixels(0, 0, 7, 7) == 1.0f);

    std::string const good = header + "\n" + image + "\n";
    CHECK(says(text_for(""), "broken.csv:1:", "the first line must be 'label,p0,..,p63'"));
    CHECK(says(text_for("label,p0\n"), "broken.csv:1:", "first line"));
    CHECK(says(text_for(header + "\n"), "broken.csv:2:", "without an image"));
    CHECK(says(text_for(good + "3,1\n"), "broken.csv:3:", "2 columns instead of 65"));
    CHECK(says(text_for(good + image + ",1\n"), "broken.csv:3:", "66 columns"));
    CHECK(says(text_for(good + good), "broken.csv:3:", "column label", "'label'"));
    CHECK(says(text_for(header + "\n10" + image.substr(1)), "broken.csv:2:", "column label", "'10'", "from 0 to 9"));
    std::string const cut = header + "\n" + image.substr(0, image.size() - 2);  // without the last pixel
    CHECK(says(text_for(cut + "17"), "broken.csv:2:", "column p63", "'17'", "from 0 to 16"));
    CHECK(says(text_for(cut + "1.5"), "broken.csv:2:", "'1.5'"));
    CHECK(says(text_for(cut), "broken.csv:2:", "column p63", "''"));
    CHECK(says(error_text(error_id::file_open, [&] { read_digits(folder / "none.csv"); }), "none.csv"));
    CHECK(says(error_text(error_id::file_open, [&] { read_digits(folder.path()); }), folder.path().string()));
  }
}

TEST_SUITE("digits: options") {
  TEST_CASE("what is given, and what is not") {
    char const* const all[] = {"digits", "--data", "d", "--out", "o", "--formats", "A,B", "--effective-bits", "5",
                               "--seed", "7", "--epochs", "3"};
    auto const o = parse_options(13, all);
    CHECK(o.data == "d");
    CHECK(o.out == "o");
    CHECK(o.formats == std::vector<std::string>{"A", "B"});
    CHECK(o.effective_bits == "5");
    CHECK(o.seed == 7);
    CHECK(o.epochs == 3);
    char const* const help[] = {"digits", "--help"};
    CHECK(parse_options(2, help).help);
  }

  TEST_CASE("each mistake is one line that names it") {
    auto const text_for = [](std::vector<char const*> arguments) {
      arguments.insert(arguments.begin(), "digits");
      return error_text(error_id::usage, [&] { parse_options(static_cast<int>(arguments.size()), arguments.data()); });
    };
    CHECK(says(text_for({}), "--data is missing"));
    CHECK(says(text_for({"--data", "d"}), "--out is missing"));
    CHECK(says(text_for({"--dada", "d"}), "unknown option '--dada'"));
    CHECK(says(text_for({"--dada"}), "unknown option '--dada'"));
    CHECK(says(text_for({"--data"}), "--data needs a value"));
    CHECK(says(text_for({"--data", "--out", "o"}), "--data needs a value"));
    CHECK(says(text_for({"--data", "d", "--data", "e"}), "--data is given twice"));
    CHECK(says(text_for({"--epochs", "0"}), "--epochs '0'"));
    CHECK(says(text_for({"--epochs", "2x"}), "--epochs '2x'"));
    CHECK(says(text_for({"--seed", "-1"}), "--seed '-1'"));
    CHECK(says(text_for({"--formats", "A,,B"}), "--formats 'A,,B' has an empty item"));
    CHECK(says(text_for({"--formats", "A,"}), "has an empty item"));
  }
}
