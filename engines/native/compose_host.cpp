// The label map on CPU cores. It exists to test the arithmetic that the CUDA kernel runs, and for programs without numpy.

#include <atomic>
#include <thread>
#include <vector>

#include "compose_core.h"

namespace {

// A GPU cannot read the tables to check them; here a wrong one is an error instead of a read outside the logits.
bool in_range(const EdgesegAxis& axis) {
  for (int i = 0; i < axis.pixels; ++i) {
    if (axis.first[i] < 0 || axis.first[i] > axis.cells - axis.taps) return false;
  }
  return true;
}

void work(const EdgesegCompose& scene, std::atomic<int>& next_row) {
  std::vector<float> masks(scene.queries);
  for (int y = next_row++; y < scene.rows.pixels; y = next_row++) {
    const long long start = static_cast<long long>(y) * scene.columns.pixels;
    for (int x = 0; x < scene.columns.pixels; ++x) edgeseg::compose_pixel(scene, start + x, masks.data(), 1);
  }
}

}  // namespace

extern "C" int edgeseg_compose_host(const EdgesegCompose* scene, int threads) {
  if (!edgeseg::valid(scene) || threads < 1 || !in_range(scene->rows) || !in_range(scene->columns)) {
    return EDGESEG_BAD_ARGUMENT;
  }
  std::atomic<int> next_row{0};
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work, std::cref(*scene), std::ref(next_row));
  work(*scene, next_row);
  for (std::thread& other : others) other.join();
  return EDGESEG_OK;
}
