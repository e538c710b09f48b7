"""Class names and what the engines need of them: unit text embeddings, and which classes the model was trained on.

Needs numpy and tokenizers only; the text encoder runs as a graph of the bundle, so a device makes its own vocabularies.
"""

from edgeseg.vocabulary.classes import DATASETS, ClassList, class_list, dataset_classes, parse_classes, read_class_file
from edgeseg.vocabulary.maker import VocabularyMaker
from edgeseg.vocabulary.vocabulary import Vocabulary

__all__ = [
    "DATASETS",
    "ClassList",
    "Vocabulary",
    "VocabularyMaker",
    "class_list",
    "dataset_classes",
    "parse_classes",
    "read_class_file",
]
