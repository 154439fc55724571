"""Headers of remote files: as much as is needed, in files of the real sizes."""

from __future__ import annotations

from pathlib import Path

from fake_hub import FakeHub
from gemmaq.files import gguf_reader
from gemmaq.files.span import FileSpan
from gemmaq.hub import Ref, client
from gemmaq.sources import headers
from home import Here

REPO = "acme/gemma-3-270m-GGUF"


def test_a_header_is_read_in_one_go_and_from_the_cache_if_it_is_there(
    hub: FakeHub, here: Here, sample_q4_0: Path, tmp_path: Path
) -> None:
    hub.add(REPO, {f"x/{sample_q4_0.name}": sample_q4_0})
    listing = client.listing(Ref(REPO))
    (file,) = (file for file in listing.files if file.path.endswith(".gguf"))
    path = headers.sparse(listing, file, tmp_path)
    assert path == tmp_path / sample_q4_0.name and path.stat().st_size == sample_q4_0.stat().st_size
    read, whole = (gguf_reader.parse(FileSpan.of(place)) for place in (path, sample_q4_0))
    assert read.tensors == whole.tensors and read.keys.keys() == whole.keys.keys()
    assert hub.bytes_sent < 10_000_000
    open_file = headers.opener(listing, tmp_path)
    assert open_file(file) == FileSpan.of(path)
    hub.reset()
    assert open_file(file) == FileSpan.of(path) and not hub.requests
    snapshot = Path(here.run("pull", REPO, "-q").stdout.strip())
    hub.reset()
    assert headers.opener(listing, tmp_path)(file) == FileSpan.of(snapshot / file.path)
    assert not hub.requests
