import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from edgeseg.vocabulary.cache import FILE, EmbeddingCache, cache_directory

VECTOR = np.array([0.6, 0.8], np.float32)


@pytest.fixture
def file(cache, tmp_path) -> Path:
    cache.put("clip", {"cat": VECTOR})
    return tmp_path / "cache" / FILE


def test_what_was_put_is_there_for_the_same_encoder_and_name_alone(cache):
    cache.put("clip", {"cat": VECTOR, "dog": VECTOR[::-1]})
    assert cache.get("clip", ["dog", "cow"], 2)["dog"].tolist() == VECTOR[::-1].tolist()
    assert set(cache.get("clip", ["dog", "cow"], 2)) == {"dog"}
    assert cache.get("other", ["dog"], 2) == {}


def _blob(data):
    def change(file):
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE embeddings SET vector = ?", (data,))
        connection.close()

    return change


def _sql(*statements):
    def change(file):
        with sqlite3.connect(file) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"no database at all" * 100),
        lambda file: file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 8192),
        _blob(b"123"),
        _blob("text"),
        _blob(np.array([np.nan, 1], np.float32).tobytes()),
        _blob(np.array([np.inf, 0], np.float32).tobytes()),
        _blob(np.array([3, 4], np.float32).tobytes()),
        _sql("DROP TABLE embeddings"),
        _sql("ALTER TABLE embeddings RENAME name TO word"),
        _sql("PRAGMA user_version = 7"),
    ],
)
def test_a_damaged_file_is_set_aside_with_a_message_and_begun_anew(file, damage, caplog):
    damage(file)
    cache = EmbeddingCache(file.parent)
    assert cache.get("clip", ["cat"], 2) == {}
    assert "was damaged" in caplog.text
    assert len(list(file.parent.glob(f"{FILE}.damaged-*"))) == 1
    cache.put("clip", {"cat": VECTOR})
    assert EmbeddingCache(file.parent).get("clip", ["cat"], 2)["cat"].tolist() == VECTOR.tolist()


def test_what_is_put_into_a_damaged_file_is_kept_in_the_new_one(file):
    file.write_bytes(b"no database at all" * 100)
    EmbeddingCache(file.parent).put("clip", {"dog": VECTOR})
    assert set(EmbeddingCache(file.parent).get("clip", ["cat", "dog"], 2)) == {"dog"}


def test_a_place_that_cannot_be_used_costs_a_message_and_nothing_else(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = EmbeddingCache(tmp_path / "file" / "folder")
    cache.put("clip", {"cat": VECTOR})
    assert cache.get("clip", ["cat"], 2) == {}
    assert caplog.text.count("are not cached") == 1


def test_a_file_that_cannot_be_written_is_still_read(file, monkeypatch, caplog):
    real = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda path, **options: real(f"file:{path}?mode=ro", uri=True, **options))
    cache = EmbeddingCache(file.parent)
    assert set(cache.get("clip", ["cat"], 2)) == {"cat"}
    cache.put("clip", {"dog": VECTOR})
    assert "readonly" in caplog.text


def test_without_a_directory_nothing_is_kept():
    cache = EmbeddingCache(None)
    cache.put("clip", {"cat": VECTOR})
    assert cache.get("clip", ["cat"], 2) == {}


def _put_many(folder, number):
    for index in range(20):
        EmbeddingCache(folder).put("clip", {f"{number}-{index}": VECTOR})


def test_several_processes_may_begin_and_fill_one_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_many, args=(tmp_path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    names = [f"{number}-{index}" for number in range(3) for index in range(20)]
    assert set(EmbeddingCache(tmp_path).get("clip", names, 2)) == set(names)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_directory_follows_the_environment(monkeypatch):
    for variable in ("EDGESEG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_directory() == Path("/home/someone/.cache/edgeseg")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == Path("/home/someone/.cache/edgeseg")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_directory() == Path("/xdg/edgeseg")
    monkeypatch.setenv("EDGESEG_CACHE", "/own")
    assert cache_directory() == Path("/own")


def test_without_a_home_there_is_no_directory(monkeypatch):
    for variable in ("EDGESEG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)

    def fail():
        raise RuntimeError

    monkeypatch.setattr(Path, "home", fail)
    assert cache_directory() is None
