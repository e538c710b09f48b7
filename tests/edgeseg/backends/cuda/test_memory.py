import gc

import numpy as np
import pytest

from edgeseg.backends.cuda.base import OutOfMemoryError
from edgeseg.backends.cuda.fake import FakeCuda
from edgeseg.backends.cuda.memory import Pool, block_bytes


@pytest.fixture
def pool():
    pool = Pool(FakeCuda())
    with pool.cuda.current():
        yield pool


def scale(pool, source, stream, factor=2.0):
    """A kernel: what a session's run does, by the pool's rules."""
    source.readable_on(stream)
    target = pool.tensor(source.shape, source.dtype, stream)
    at, size_bytes = (source.pointer, target.pointer), source.size_bytes

    def kernel():
        x, y = (pool.cuda.view(pointer, size_bytes).view(np.float32) for pointer in at)
        y[:] = x * factor

    stream.enqueue(kernel)
    pool.used([source], [target], stream)
    return target


@pytest.mark.parametrize(("size", "block"), [(0, 512), (1, 512), (512, 512), (513, 1024), (2**20 + 1, 2**21)])
def test_blocks_are_rounded_up(size, block):
    assert block_bytes(size) == block


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 3, 5)])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "float16"])
def test_an_upload_comes_back_as_it_was(pool, shape, dtype):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    back = pool.download(pool.upload(array, pool.stream), pool.stream)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


def test_an_array_with_strides_is_uploaded_in_row_major_order(pool):
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(pool.download(pool.upload(array, pool.stream), pool.stream), array)


def test_the_caller_may_change_an_array_right_after_its_upload(pool):
    array = np.ones(4, np.float32)
    tensor = pool.upload(array, pool.stream)
    array[:] = 7
    assert pool.download(tensor, pool.stream).tolist() == [1, 1, 1, 1]


def test_two_uploads_in_flight_do_not_share_a_staging_buffer(pool):
    tensors = [pool.upload(np.full(4, value, np.float32), pool.stream) for value in (1, 2, 3)]
    assert [pool.download(tensor, pool.stream)[0] for tensor in tensors] == [1, 2, 3]


def test_a_run_on_another_stream_waits_for_its_input(pool):
    other = pool.cuda.stream()
    tensor = pool.upload(np.ones(4, np.float32), pool.stream)
    assert pool.download(scale(pool, tensor, other), other).tolist() == [2, 2, 2, 2]


def test_a_download_on_another_stream_waits_for_the_run(pool):
    other = pool.cuda.stream()
    tensor = pool.upload(np.ones(4, np.float32), other)
    assert pool.download(scale(pool, tensor, other), pool.stream).tolist() == [2, 2, 2, 2]


def test_a_dropped_tensor_that_is_still_being_read_is_not_overwritten(pool):
    reader, writer = pool.cuda.stream(), pool.cuda.stream()
    tensor = pool.upload(np.ones(4, np.float32), reader)
    result = scale(pool, tensor, reader)
    address = tensor.pointer
    del tensor
    gc.collect()
    overwriting = pool.upload(np.full(4, 9, np.float32), writer)
    assert overwriting.pointer == address
    assert pool.download(overwriting, writer).tolist() == [9, 9, 9, 9]
    assert pool.download(result, reader).tolist() == [2, 2, 2, 2]


def test_a_tensor_that_is_held_keeps_its_content_over_later_work(pool):
    tensor = pool.upload(np.ones(4, np.float32), pool.stream)
    first = scale(pool, tensor, pool.stream, 2)
    second = scale(pool, tensor, pool.stream, 3)
    assert pool.download(second, pool.stream)[0] == 3
    assert pool.download(first, pool.stream)[0] == 2


def test_nothing_is_allocated_once_warm(pool):
    for image in range(5):
        result = scale(pool, pool.upload(np.full(4, image, np.float32), pool.stream), pool.stream)
        assert pool.download(result, pool.stream)[0] == 2 * image
        if image == 1:
            warm = pool.cuda.allocations
    assert pool.cuda.allocations == warm


def test_trim_frees_what_nobody_holds_and_nothing_else(pool):
    held = pool.upload(np.ones(4, np.float32), pool.stream)
    dropped = pool.upload(np.ones(4, np.float32), pool.stream)
    del dropped
    gc.collect()
    pool.trim()
    assert list(pool.cuda.memory) == [held.pointer]


def test_a_tensor_outlives_its_pool_and_then_frees_its_memory():
    cuda = FakeCuda()
    pool = Pool(cuda)
    with cuda.current():
        tensor = pool.upload(np.ones(4, np.float32), pool.stream)
    del pool
    assert list(cuda.memory) == [tensor.pointer]
    del tensor
    gc.collect()
    assert not cuda.memory


def test_memory_of_other_sizes_is_given_up_before_an_allocation_fails():
    pool = Pool(FakeCuda(memory_bytes=4096))
    with pool.cuda.current():
        large = pool.tensor((4096,), np.uint8, pool.stream)
        del large
        gc.collect()
        assert pool.tensor((512,), np.uint8, pool.stream).size_bytes == 512


def test_more_than_there_is_gives_an_error_with_the_size():
    pool = Pool(FakeCuda(memory_bytes=4096))
    with pool.cuda.current(), pytest.raises(OutOfMemoryError, match=r"allocate 2.0 MiB of .*not that much left"):
        pool.tensor((2**21,), np.uint8, pool.stream)


def test_a_captured_graph_repeats_its_work():
    cuda = FakeCuda()
    source, target = np.full(4, 5, np.uint8), np.zeros(4, np.uint8)
    with cuda.current():
        stream, pointer = cuda.stream(), cuda.allocate(512)
        graph = stream.capture(lambda: stream.copy_in(pointer, source))
    stream.synchronize()
    assert cuda.view(pointer, 4).tolist() == [255] * 4
    with cuda.current():
        graph.launch(stream)
        stream.copy_out(target, pointer)
    stream.synchronize()
    assert target.tolist() == [5] * 4
