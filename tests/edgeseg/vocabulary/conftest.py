from pathlib import Path

import pytest

from edgeseg.vocabulary.cache import EmbeddingCache
from edgeseg.vocabulary.maker import VocabularyMaker
from edgeseg.vocabulary.tokenizer import ClipTokenizer
from tests.edgeseg.vocabulary.tiny import FolderBundle, write_tokenizer


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path)


@pytest.fixture
def tokenizer(tokenizer_file: Path) -> ClipTokenizer:
    return ClipTokenizer.open(tokenizer_file)


@pytest.fixture
def bundle(tokenizer_file: Path) -> FolderBundle:
    return FolderBundle(tokenizer_file.parent)


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


@pytest.fixture
def maker(bundle: FolderBundle, cache: EmbeddingCache) -> VocabularyMaker:
    return VocabularyMaker(bundle, bundle.open_session, cache)
