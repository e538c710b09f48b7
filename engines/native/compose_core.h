// The label map of query masks and class probabilities, one pixel at a time: what the CPU and the GPU version share.
//
// The score of class c at a pixel is the sum over queries q of class_probs[q, c] * sigmoid(logits[q]), the logits enlarged
// to the canvas, cropped and resized to the image. Both resizes are bilinear and separable, so each axis is one table from
// image pixels to a run of mask cells (`edgeseg/compose.py: axis_operator` makes the same as a matrix). Nothing of size
// classes x height x width exists: a pixel keeps its Q mask values, and the best class so far.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define EDGESEG_BOTH __host__ __device__ inline
#else
#define EDGESEG_BOTH inline
#endif

extern "C" {

// One axis. Pixel i is the sum over t < taps of weights[i * taps + t] * cell[first[i] + t]; first[i] + taps <= cells.
struct EdgesegAxis {
  const int32_t* first;  // (pixels,)
  const float* weights;  // (pixels, taps)
  int32_t pixels, cells, taps;
};

// All arrays are row-major, in host memory for edgeseg_compose_host and in device memory for edgeseg_compose_cuda.
struct EdgesegCompose {
  const float* logits;       // (queries, rows.cells, columns.cells), finite
  const float* class_probs;  // (queries, classes)
  int32_t queries, classes;
  EdgesegAxis rows, columns;
  float threshold;   // a pixel whose best score is below it gets the label 65535; 0 turns that off
  uint16_t* labels;  // (rows.pixels, columns.pixels), out
  float* best;       // the same shape, out: the winner's score; null if not wanted
};

// Return 0, or one of these.
enum EdgesegStatus { EDGESEG_OK = 0, EDGESEG_BAD_ARGUMENT = 1, EDGESEG_TOO_MANY_QUERIES = 2, EDGESEG_CUDA_ERROR = 3 };

int edgeseg_compose_host(const EdgesegCompose* scene, int threads);
int edgeseg_compose_cuda(const EdgesegCompose* scene, void* stream);  // stream: a cudaStream_t; returns at once
}

namespace edgeseg {

constexpr int kNoneLabel = 65535;
constexpr int kClassChunk = 16;        // sums that one pixel keeps in registers
constexpr float kLogitFloor = -60.0f;  // sigmoid is 1e-26 there; below, products become slow denormal numbers

inline bool valid(const EdgesegAxis& axis) {
  return axis.first && axis.weights && axis.pixels > 0 && axis.taps > 0 && axis.taps <= axis.cells;
}

inline bool valid(const EdgesegCompose* scene) {
  return scene && scene->logits && scene->class_probs && scene->labels && scene->queries > 0 && scene->classes > 0 &&
         scene->classes < kNoneLabel && valid(scene->rows) && valid(scene->columns);
}

EDGESEG_BOTH float sigmoid(float logit) { return 1.0f / (1.0f + expf(-fmaxf(logit, kLogitFloor))); }

// The logit of one query's cells, (rows.cells, columns.cells), at a pixel.
EDGESEG_BOTH float interpolate(const EdgesegCompose& scene, const float* cells, int y, int x) {
  const EdgesegAxis &rows = scene.rows, &columns = scene.columns;
  const float* corner = cells + static_cast<size_t>(rows.first[y]) * columns.cells + columns.first[x];
  float sum = 0.0f;
  for (int i = 0; i < rows.taps; ++i) {
    float line = 0.0f;
    for (int j = 0; j < columns.taps; ++j) {
      line += columns.weights[x * columns.taps + j] * corner[static_cast<size_t>(i) * columns.cells + j];
    }
    sum += rows.weights[y * rows.taps + i] * line;
  }
  return sum;
}

// The mask values of a pixel: masks[q * stride], 0 to 1.
EDGESEG_BOTH void fill_masks(const EdgesegCompose& scene, int y, int x, float* masks, int stride) {
  const size_t plane = static_cast<size_t>(scene.rows.cells) * scene.columns.cells;
  for (int q = 0; q < scene.queries; ++q) {
    masks[q * stride] = sigmoid(interpolate(scene, scene.logits + q * plane, y, x));
  }
}

// Scores of `count` classes from `first`; the earlier class wins a tie. `count` is kClassChunk but in the last chunk.
template <int Chunk>
EDGESEG_BOTH void score_chunk(const EdgesegCompose& scene, const float* masks, int stride, int first, int count,
                              float& best, int& label) {
  float sums[Chunk] = {};
  for (int q = 0; q < scene.queries; ++q) {
    const float mask = masks[q * stride];
    const float* probs = scene.class_probs + static_cast<size_t>(q) * scene.classes + first;
    if (count == Chunk) {  // the same for all pixels; a fixed count lets the compiler unroll
      for (int k = 0; k < Chunk; ++k) sums[k] += mask * probs[k];
    } else {
      for (int k = 0; k < Chunk; ++k) sums[k] += k < count ? mask * probs[k] : 0.0f;
    }
  }
  for (int k = 0; k < Chunk; ++k) {
    if (k < count && (sums[k] > best || first + k == 0)) {
      best = sums[k];
      label = first + k;
    }
  }
}

// Label and best score of a pixel from its mask values.
EDGESEG_BOTH void write_label(const EdgesegCompose& scene, long long pixel, const float* masks, int stride) {
  float best = 0.0f;
  int label = 0;
  for (int first = 0; first < scene.classes; first += kClassChunk) {
    const int rest = scene.classes - first;
    score_chunk<kClassChunk>(scene, masks, stride, first, rest < kClassChunk ? rest : kClassChunk, best, label);
  }
  scene.labels[pixel] = static_cast<uint16_t>(best < scene.threshold ? kNoneLabel : label);
  if (scene.best) scene.best[pixel] = best;
}

// Everything for pixel number `pixel` in row-major order. `masks` has room for queries * stride values.
EDGESEG_BOTH void compose_pixel(const EdgesegCompose& scene, long long pixel, float* masks, int stride) {
  const int y = static_cast<int>(pixel / scene.columns.pixels), x = static_cast<int>(pixel % scene.columns.pixels);
  fill_masks(scene, y, x, masks, stride);
  write_label(scene, pixel, masks, stride);
}

}  // namespace edgeseg
