// The label map on a GPU: one thread per pixel, its mask values in shared memory, class sums in registers.
//
// Threads of a warp take neighbouring pixels of a row: they read the same cells, and all read the same probability at the
// same time. A thread uses only its own column of the shared memory, so nothing is synchronised.

#include <cuda_runtime.h>

#include "compose_core.h"

namespace {

constexpr int kSharedBytes = 48 * 1024;  // what every GPU gives a block without asking

__global__ void compose(EdgesegCompose scene, long long pixels) {
  extern __shared__ float masks[];  // (queries, blockDim.x)
  const long long pixel = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (pixel < pixels) edgeseg::compose_pixel(scene, pixel, masks + threadIdx.x, blockDim.x);
}

// The most threads per block whose mask values fit; 0 if not even one warp's do.
int block_threads(int queries) {
  for (int threads = 128; threads >= 32; threads /= 2) {
    if (static_cast<size_t>(queries) * threads * sizeof(float) <= kSharedBytes) return threads;
  }
  return 0;
}

}  // namespace

extern "C" int edgeseg_compose_cuda(const EdgesegCompose* scene, void* stream) {
  if (!edgeseg::valid(scene)) return EDGESEG_BAD_ARGUMENT;
  const int threads = block_threads(scene->queries);
  if (threads == 0) return EDGESEG_TOO_MANY_QUERIES;
  const long long pixels = static_cast<long long>(scene->rows.pixels) * scene->columns.pixels;
  const long long blocks = (pixels + threads - 1) / threads;
  if (blocks > INT32_MAX) return EDGESEG_BAD_ARGUMENT;
  const size_t shared_bytes = static_cast<size_t>(scene->queries) * threads * sizeof(float);
  compose<<<static_cast<unsigned>(blocks), threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(*scene, pixels);
  return cudaGetLastError() == cudaSuccess ? EDGESEG_OK : EDGESEG_CUDA_ERROR;
}
