// edgeseg_compose_host against a reference in double precision that resizes twice and keeps all scores.

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "compose_core.h"

namespace {

using Matrix = std::vector<std::vector<double>>;

constexpr int kTaps = 4;  // two bilinear resizes read at most four cells per axis
int failures = 0;

void expect(bool holds, const char* what, const char* scene) {
  if (holds) return;
  ++failures;
  std::fprintf(stderr, "FAILED: %s (%s)\n", what, scene);
}

// Bilinear with half-pixel centres and edge clamp: (outputs, length).
Matrix bilinear(int length, int outputs, double step) {
  Matrix matrix(outputs, std::vector<double>(length, 0.0));
  for (int i = 0; i < outputs; ++i) {
    const double position = std::max((i + 0.5) * step - 0.5, 0.0);
    const int lower = std::min(static_cast<int>(position), length - 1), upper = std::min(lower + 1, length - 1);
    const double weight = std::min(position - lower, 1.0);
    matrix[i][lower] += 1.0 - weight;
    matrix[i][upper] += weight;
  }
  return matrix;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix result(a.size(), std::vector<double>(b[0].size(), 0.0));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < b.size(); ++k)
      for (size_t j = 0; j < b[0].size(); ++j) result[i][j] += a[i][k] * b[k][j];
  return result;
}

Matrix transposed(const Matrix& a) {
  Matrix result(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[0].size(); ++j) result[j][i] = a[i][j];
  return result;
}

struct Sides {
  int cells, canvas, valid, original;
};

struct Resizes {
  Matrix enlarge, shrink;  // (valid, cells), (original, valid)
  explicit Resizes(const Sides& side)
      : enlarge(bilinear(side.cells, side.canvas, double(side.cells) / side.canvas)),
        shrink(bilinear(side.valid, side.original, double(side.valid) / side.original)) {
    enlarge.resize(side.valid);
  }
};

// The two resizes of an axis as the table that the function takes.
struct Table {
  std::vector<int32_t> first;
  std::vector<float> weights;
  EdgesegAxis axis;
  explicit Table(const Matrix& operation) {
    const int cells = static_cast<int>(operation[0].size()), taps = std::min(kTaps, cells);
    for (const auto& row : operation) {
      const auto used = std::find_if(row.begin(), row.end(), [](double weight) { return weight != 0.0; });
      const int start = std::min(static_cast<int>(used - row.begin()), cells - taps);
      first.push_back(start);
      for (int t = 0; t < taps; ++t) weights.push_back(static_cast<float>(row[start + t]));
    }
    axis = {first.data(), weights.data(), static_cast<int32_t>(operation.size()), cells, taps};
  }
};

struct Case {
  const char* name;
  int queries, classes;
  Sides rows, columns;
  int threads;
};

std::vector<float> normal(size_t count, std::mt19937& random, float scale) {
  std::normal_distribution<float> distribution(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random);
  return values;
}

// (classes) scores of every pixel: enlarge, crop, resize, then sigmoid and product, as the definition says.
std::vector<std::vector<double>> reference(const Case& c, const std::vector<float>& logits,
                                           const std::vector<float>& probs) {
  const Resizes rows(c.rows), columns(c.columns);
  std::vector<std::vector<double>> scores(c.rows.original * c.columns.original, std::vector<double>(c.classes, 0.0));
  for (int q = 0; q < c.queries; ++q) {
    Matrix cells(c.rows.cells, std::vector<double>(c.columns.cells));
    for (int i = 0; i < c.rows.cells; ++i)
      for (int j = 0; j < c.columns.cells; ++j) cells[i][j] = logits[(q * c.rows.cells + i) * c.columns.cells + j];
    const Matrix canvas = product(product(rows.enlarge, cells), transposed(columns.enlarge));
    const Matrix image = product(product(rows.shrink, canvas), transposed(columns.shrink));
    for (int y = 0; y < c.rows.original; ++y)
      for (int x = 0; x < c.columns.original; ++x)
        for (int k = 0; k < c.classes; ++k)
          scores[y * c.columns.original + x][k] += probs[q * c.classes + k] / (1.0 + std::exp(-image[y][x]));
  }
  return scores;
}

void check(const Case& c) {
  std::mt19937 random(7);
  const auto logits = normal(size_t(c.queries) * c.rows.cells * c.columns.cells, random, 8.0f);
  auto probs = normal(size_t(c.queries) * c.classes, random, 1.0f);
  for (float& prob : probs) prob = std::fabs(prob);
  const Resizes rows(c.rows), columns(c.columns);
  const Table row_table(product(rows.shrink, rows.enlarge)), column_table(product(columns.shrink, columns.enlarge));
  const size_t pixels = size_t(c.rows.original) * c.columns.original;
  std::vector<uint16_t> labels(pixels, 12345);
  std::vector<float> best(pixels, -1.0f);
  EdgesegCompose scene{logits.data(), probs.data(), c.queries,     c.classes,  row_table.axis,
                       column_table.axis, 0.0f,     labels.data(), best.data()};
  expect(edgeseg_compose_host(&scene, c.threads) == EDGESEG_OK, "status is 0", c.name);
  const auto scores = reference(c, logits, probs);
  double worst = 0.0, lost = 0.0;
  for (size_t i = 0; i < pixels; ++i) {
    const double top = *std::max_element(scores[i].begin(), scores[i].end());
    worst = std::max(worst, std::fabs(best[i] - top) / std::max(top, 1e-6));
    lost = std::max(lost, labels[i] < c.classes ? (top - scores[i][labels[i]]) / std::max(top, 1e-6) : 1.0);
  }
  std::printf("%-28s best score off by %.1e, label's score below the best by %.1e\n", c.name, worst, lost);
  expect(worst < 2e-5, "the best score is the reference's", c.name);
  expect(lost < 2e-5, "the label has the best score", c.name);
  const float middle = best[pixels / 2];
  const std::vector<uint16_t> all = labels;
  scene.threshold = middle, scene.best = nullptr;
  edgeseg_compose_host(&scene, c.threads);
  bool right = true;
  for (size_t i = 0; i < pixels; ++i) right &= labels[i] == (best[i] < middle ? edgeseg::kNoneLabel : all[i]);
  expect(right, "pixels below the threshold, and only they, get no class", c.name);
}

void check_refusals() {
  const float one[4] = {1.0f, 1.0f, 1.0f, 1.0f};
  const int32_t zero = 0, far = 1;
  uint16_t label = 0;
  const EdgesegAxis axis{&zero, one, 1, 1, 1};
  const EdgesegCompose good{one, one, 1, 1, axis, axis, 0.0f, &label, nullptr};
  expect(edgeseg_compose_host(&good, 1) == EDGESEG_OK, "the smallest scene works", "refusals");
  expect(edgeseg_compose_host(nullptr, 1) == EDGESEG_BAD_ARGUMENT, "no scene", "refusals");
  expect(edgeseg_compose_host(&good, 0) == EDGESEG_BAD_ARGUMENT, "no thread", "refusals");
  std::vector<EdgesegCompose> bad(6, good);
  bad[0].logits = nullptr;
  bad[1].queries = 0;
  bad[2].classes = edgeseg::kNoneLabel;
  bad[3].rows.taps = 0;
  bad[4].columns.first = &far;
  bad[5].rows.taps = 2;
  for (const EdgesegCompose& scene : bad) {
    expect(edgeseg_compose_host(&scene, 1) == EDGESEG_BAD_ARGUMENT, "a bad scene is refused", "refusals");
  }
}

}  // namespace

int main() {
  const Case cases[] = {
      {"one of everything", 1, 1, {1, 4, 4, 1}, {1, 4, 4, 1}, 1},
      {"canvas size", 7, 5, {8, 32, 32, 32}, {16, 64, 64, 64}, 1},
      {"padded and enlarged", 13, 17, {8, 32, 29, 61}, {16, 64, 51, 107}, 3},
      {"padded and shrunk", 100, 33, {16, 64, 61, 17}, {24, 96, 85, 23}, 2},
      {"few cells", 3, 16, {2, 8, 7, 13}, {3, 12, 11, 5}, 4},
      {"many classes", 5, 847, {8, 32, 31, 9}, {8, 32, 17, 11}, 2},
      {"more threads than rows", 4, 3, {4, 16, 15, 2}, {4, 16, 16, 31}, 8},
  };
  for (const Case& c : cases) check(c);
  check_refusals();
  return failures == 0 ? 0 : 1;
}
