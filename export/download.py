"""Published checkpoints from the Hugging Face hub, held to the commit and digest that the hub states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.atomic import storage_errors
from edgeseg.errors import DownloadError, StorageError

from .digest import file_digest
from .recipe import Recipe


@dataclass(frozen=True)
class Download:
    """A downloaded file: where it lies, and "repository@commit"."""

    path: Path
    hub: str


def download(recipe: Recipe) -> Download:
    """The preset's published checkpoint, from the hub or from its cache.

    Raises:
        DownloadError: no network, no such file, or its digest is not the one that the hub states.
        StorageError: the hub's cache is full or cannot be written.
    """
    if not recipe.hub:
        small = f"; edgeseg's source tree has it, weights/{recipe.name}.safetensors" if "tiny" in recipe.name else ""
        todo = f"give the path of one; docs/export.md says where published files are{small}"
        raise DownloadError(f"download {recipe.name}", "no checkpoint of it is on the hub", todo)
    if "page" in recipe.hub:
        todo = f"fetch {recipe.hub['file']} as {recipe.hub['page']} says, and give its path"
        raise DownloadError(f"download {recipe.name}", "its authors keep the checkpoint elsewhere", todo)
    name = recipe.hub["file"]
    return fetch(recipe.hub["repository"], name, f"run: edgeseg export {name}")


def fetch(repository: str, name: str, then: str, sha256: str | None = None) -> Download:
    """One file of a repository on the hub, or in the hub's cache.

    Args:
        repository: "owner/name".
        name: of the file.
        then: what to do with a copy fetched by hand, for the error.
        sha256: its digest; by default what the hub states, which it does for large files only.

    Raises:
        DownloadError, StorageError: as `download` does.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    asked = f"download {name} of {repository}"
    try:
        with storage_errors(asked):
            stated = get_hf_file_metadata(hf_hub_url(repository, name))
            path = Path(hf_hub_download(repository, name, revision=stated.commit_hash))
    except StorageError:
        raise
    except Exception as error:  # the client's HTTP library differs from version to version, and so do its errors
        found = f"the hub cannot be reached or refuses ({type(error).__name__})"
        page = f"https://huggingface.co/{repository}"
        todo = f"fetch {name} from {page} on a machine with a network, copy it here, and {then}"
        raise DownloadError(asked, found, todo) from error
    digest, wanted = file_digest(path), sha256 or stated.etag
    if wanted != digest:
        found = f"its sha256 is {digest}, {'edgeseg knows' if sha256 else 'the hub states'} {wanted}"
        raise DownloadError(asked, found, f"delete {path} and try again")
    return Download(path, f"{repository}@{stated.commit_hash}")
