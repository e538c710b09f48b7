"""Downloads from a hub of our own, each in a process of its own: the client reads its settings at import."""

import errno
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import pytest

from edgeseg.errors import DownloadError, StorageError
from edgeseg.export.download import download
from edgeseg.export.recipe import preset

pytestmark = pytest.mark.torch  # for the command; the download itself needs none

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = b"not really a checkpoint" * 1000
FILE = "/slonetime/EBSeg/resolve/{}/EBSeg_base.pth"

CLIENT = """
import sys
from edgeseg.errors import EdgesegError
from edgeseg.export.download import download
from edgeseg.export.recipe import preset
try:
    made = download(preset("ebseg-b"))
    print(made.hub, made.path)
except EdgesegError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@dataclass
class Hub:
    """What the hub states and serves, and what it was asked."""

    digest: str = hashlib.sha256(CONTENT).hexdigest()
    content: bytes = CONTENT
    status: int = 200
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def hub():
    state = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(b"")

        def do_GET(self):
            self.answer(state.content)

        def answer(self, body):
            state.asked.append(f"{self.command} {self.path}")
            known = self.path in (FILE.format("main"), FILE.format(COMMIT))
            status = state.status if known else 404
            self.send_response(status)
            if status == 200:
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("X-Linked-Etag", f'"{state.digest}"')
                self.send_header("X-Linked-Size", str(len(state.content)))
                self.send_header("ETag", '"of the redirect"')
                self.send_header("Content-Length", str(len(state.content)))
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
            self.end_headers()
            if status == 200:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(hub, tmp_path):
    """Runs the download against our hub, with a cache of its own; `proxy` would catch a request to anywhere else."""

    def run(code=CLIENT, **extra):
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HTTPS_PROXY": hub.url,
            "https_proxy": hub.url,
            "NO_PROXY": "127.0.0.1",
            **extra,
        }
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("HF_")}
        words = [sys.executable, "-c", code]
        return subprocess.run(
            words, env=environment | settings, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def refused(process):
    """The one line of a failed download, which has the steps to fetch the file by hand."""
    assert process.returncode == DownloadError.exit_code
    assert process.stdout == ""
    lines = [line for line in process.stderr.splitlines() if line.startswith("cannot download")]
    assert len(lines) == 1, process.stderr
    assert "download EBSeg_base.pth of slonetime/EBSeg" in lines[0]
    return lines[0]


def test_a_download_records_repository_and_commit(client, hub, tmp_path):
    process = client()
    assert process.returncode == 0, process.stderr
    stated, path = process.stdout.split()
    assert stated == f"slonetime/EBSeg@{COMMIT}"
    assert path.startswith(str(tmp_path / "cache"))
    with open(path, "rb") as file:
        assert file.read() == CONTENT
    assert f"GET {FILE.format(COMMIT)}" in hub.asked  # the commit that was stated, not what "main" is by then


@pytest.mark.slow
def test_a_second_download_comes_from_the_cache(client, hub):
    assert client().returncode == 0
    hub.asked.clear()
    assert client().returncode == 0
    assert not [line for line in hub.asked if line.startswith("GET")]


@pytest.mark.parametrize(
    "content", [CONTENT[:-1] + b"?", pytest.param(CONTENT.replace(b"not", b"NOT", 1), marks=pytest.mark.slow)]
)
def test_a_file_with_another_digest_is_refused(client, hub, content):
    hub.content = content
    line = refused(client())
    assert f"its sha256 is {hashlib.sha256(content).hexdigest()}" in line
    assert f"the hub states {hub.digest}" in line
    assert "delete " in line


@pytest.mark.slow
def test_a_cached_file_that_was_changed_is_refused(client):
    path = client().stdout.split()[1]
    with open(path, "ab") as file:
        file.write(b"!")
    assert f"delete {path}" in refused(client())


def by_hand(line):
    return all(
        step in line
        for step in (
            "fetch EBSeg_base.pth from https://huggingface.co/slonetime/EBSeg",
            "edgeseg export EBSeg_base.pth",
        )
    )


def test_without_a_network_the_steps_by_hand_are_told(client, hub):
    assert by_hand(refused(client(HF_HUB_OFFLINE="1")))
    assert hub.asked == []


def test_a_hub_that_cannot_be_reached_gives_the_steps_by_hand(client):
    assert by_hand(refused(client(HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_ETAG_TIMEOUT="2")))


@pytest.mark.parametrize("status", [404, *(pytest.param(status, marks=pytest.mark.slow) for status in (401, 403))])
def test_a_hub_that_refuses_gives_the_steps_by_hand(client, hub, status):
    hub.status = status
    assert by_hand(refused(client()))


def test_the_command_exits_with_the_documented_code(client):
    code = "import sys; from edgeseg.cli import main; sys.exit(main(['export', 'ebseg-b']))"
    process = client(code, HF_HUB_OFFLINE="1")
    assert process.returncode == 10
    assert len(process.stderr.splitlines()) == 1
    assert process.stderr.startswith("edgeseg: cannot download EBSeg_base.pth")


def test_a_downloaded_file_that_is_no_checkpoint_leaves_no_bundle(client, tmp_path):
    code = "import sys; from edgeseg.cli import main; sys.exit(main(['export', 'ebseg-b', '--json']))"
    process = client(code)
    assert process.returncode == 4
    assert "cannot read the checkpoint" in process.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_full_disk_is_not_taken_for_a_network_fault(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", full)
    with pytest.raises(StorageError, match=r"download EBSeg_base\.pth of slonetime/EBSeg: the disk is full"):
        download(preset("ebseg-b"))


def test_a_preset_without_a_published_file_is_refused():
    from dataclasses import replace

    with pytest.raises(DownloadError, match="no checkpoint of it is on the hub"):
        download(replace(preset("ebseg-b"), hub={}))


@pytest.mark.slow
def test_the_source_goes_into_the_bundle(client, hub, tmp_path):
    """A small checkpoint under the published name; its family is the preset's that was asked for."""
    from edgeseg.bundle import Bundle
    from tests.export.small import write_small

    hub.content = write_small(tmp_path, text=False).path.read_bytes()
    hub.digest = hashlib.sha256(hub.content).hexdigest()
    words = ["export", "ebseg-b", "--size", "64x64", "--json"]
    process = client(f"import sys; from edgeseg.cli import main; sys.exit(main({words!r}))")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["source"]["hub"] == f"slonetime/EBSeg@{COMMIT}"
    source = Bundle.open(tmp_path / "ebseg-b.bundle").manifest.source
    assert (source.hub, source.sha256) == (f"slonetime/EBSeg@{COMMIT}", hub.digest)
    assert source.checkpoint == "EBSeg_base.pth"
