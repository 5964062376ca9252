"""Weights by name or address: downloaded once, into the cache folder of `torch.hub`, and checked.

A download has another name until it has the length that the server announced, the size and the
SHA-256 that are known, and can be read as weights; so a broken or a wrong one is never used.
"""

import difflib
import hashlib
import re
import string
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch

from nets.io.darknet import read_darknet
from nets.io.torch_files import MAX_BYTES, read_torch_file
from utils.core.errors import UserError, shorten
from utils.core.inputs import find_first, hash_content, is_file, read_with, similar_file
from utils.core.outputs import new_file
from utils.core.progress import progress_bar

TIMEOUT = 30.0  # seconds without an answer
CHUNK = 2**18  # bytes
TORCH_SUFFIXES = (".pt", ".pth")
COMPANIONS = (".cfg", ".names")  # of Darknet weights: without them, Darknet's own are assumed
NAMES = re.compile(r".*\.(pt|pth|onnx|weights|conv\.\d+)")
NAME_LENGTH = 100  # characters
ADDRESS = re.compile(r"[A-Za-z][\w+.-]+://")  # more than a letter: not a drive of Windows
SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Source:
    """A file on the web.

    Attributes:
        url: its address.
        name: name of its copy in the cache folder.
        size: bytes; None: unknown.
        sha256: hexadecimal; None: unknown.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        """The address without a query, which may hold a secret."""
        return shorten(re.split(r"[?#]", self.url)[0], 160)

    @property
    def path(self) -> Path:
        """The copy in the cache folder."""
        return Path(torch.hub.get_dir(), "checkpoints", self.name)


DARKNET = "https://github.com/AlexeyAB/darknet/releases/download/darknet_yolo_v4_pre/"
REFERENCE = "https://github.com/bubbliiiing/yolov4-tiny-pytorch/releases/download/v1.0/"
# Public weights. Sizes and hashes are what other projects have recorded.
PUBLIC = {
    source.name: source
    for source in (
        Source(  # COCO, 80 classes
            f"{DARKNET}yolov4-tiny.weights",
            "yolov4-tiny.weights",
            24_251_276,
            "cf9fbfd0f6d4869b35762f56100f50ed05268084078805f0e7989efe5bb8ca87",
        ),
        Source(f"{DARKNET}yolov4-tiny.conv.29", "yolov4-tiny.conv.29", 19_789_716),  # no heads
        *(
            Source(f"{REFERENCE}{name}", name)
            for name in (
                "yolov4_tiny_weights_coco.pth",
                "yolov4_tiny_weights_voc.pth",
                "yolov4_tiny_weights_voc_SE.pth",
                "yolov4_tiny_weights_voc_CBAM.pth",
                "yolov4_tiny_weights_voc_ECA.pth",
            )
        ),
    )
}


def locate_weights(weights: str | Path) -> Path:
    """The file that the user means; downloaded, if it is an address or public weights.

    Args:
        weights: a path; `http://...` or `https://...`, perhaps with `#sha256=` and 64 digits; or a
            name in `PUBLIC`, if there is no file of this name.

    Returns:
        A path. Only what was downloaded is known to exist.

    Raises:
        UserError: the address is not one of weights, or the file cannot be downloaded whole.
    """
    text = str(weights)
    if ADDRESS.match(text):
        return _fetch(_parse_address(text))
    if find_first([text]) is None:
        if text in PUBLIC:
            return _fetch(PUBLIC[text])
        hint = suggest_public(text)
        if Path(text).name == text and hint:
            raise UserError(f"{text}: no such file{similar_file(text) or hint}")
    return Path(weights)


def is_remote(weights: str | Path) -> bool:
    """Whether `locate_weights` may have to download it."""
    return ADDRESS.match(str(weights)) is not None or str(weights) in PUBLIC


def suggest_public(name: str) -> str:
    """A hint at public weights with a name like this, whatever the suffix; empty if none has."""
    stems = {Path(known).stem: known for known in PUBLIC}
    close = difflib.get_close_matches(Path(name).stem, stems, n=1, cutoff=0.7)
    return f"; did you mean '{stems[close[0]]}'?" if close else ""


def is_download(path: Path) -> bool:
    """Whether a file lies in the cache folder."""
    return path.parent == Source("", "any").path.parent


def _parse_address(text: str) -> Source:
    """What an address asks for.

    Raises:
        UserError: it is not the address of weights.
    """
    source = Source(text, "")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:  # such as a bracket that is never closed, or port 99999
        raise UserError(f"{source}: not an address: {error}") from None
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise UserError(f"{source}: expected a file, or an address with http:// or https://")
    if parts.username is not None:
        raise UserError(f"{parts.scheme}://{host}: the address has a password, which runs record")
    name = PurePosixPath(unquote(parts.path)).name
    if not NAMES.fullmatch(name):
        raise UserError(
            f"{source}: expected the address of a file .pt, .pth, .onnx, .weights or .conv.29"
        )
    without = parts._replace(fragment="").geturl()
    return Source(without, _cached_name(without, name), sha256=_parse_hash(parts, source))


def _parse_hash(parts: SplitResult, source: Source) -> str | None:
    if not parts.fragment:
        return None
    found = SHA256.fullmatch(parts.fragment)
    if found is None:
        raise UserError(
            f"{source}: #{shorten(parts.fragment)}: expected #sha256= and 64 hexadecimal digits"
        )
    return found[1].lower()


def _cached_name(url: str, name: str) -> str:
    """A name that no other address gets, and that is harmless on every system."""
    digest = hashlib.sha256(url.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{digest}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)[-NAME_LENGTH:]}"


def _fetch(source: Source) -> Path:
    """The copy of a file in the cache folder, downloaded if it is missing or another file.

    Raises:
        UserError: it cannot be downloaded whole.
    """
    path = source.path
    if is_file(path) and not _find_difference(source, path):
        return path
    print(f"downloading {source} to {path}", file=sys.stderr)
    with new_file(path) as part:
        _download(source, part)
        difference = _find_difference(source, part)
        if difference:
            raise UserError(f"{source}: not used: {difference}")
        _check_readable(source, part)
        if path.suffix == ".weights" and source.name not in PUBLIC:
            _fetch_companions(source)  # now, so that weights in the cache have theirs
    return path


def _find_difference(source: Source, path: Path) -> str:
    """How a file differs from what is known of it; empty if it does not."""
    size = path.stat().st_size
    if source.size not in (None, size):
        return f"{size:,} bytes, expected {source.size:,}"
    found = read_with(hash_content, path) if source.sha256 else None
    return f"its SHA-256 is {found}, expected {source.sha256}" if found != source.sha256 else ""


def _check_readable(source: Source, part: Path) -> None:
    """Refuse what no command could load, such as the page of a site that asks for a login."""
    try:
        if source.path.suffix in TORCH_SUFFIXES:
            read_torch_file(part)
        elif source.path.suffix != ".onnx":
            read_darknet(part)
    except UserError as error:
        raise UserError(f"{source}: not used: {str(error).removeprefix(f'{part}: ')}") from None


def _fetch_companions(source: Source) -> None:
    """Download what the server has of the `.cfg` and `.names` of Darknet weights."""
    for suffix in COMPANIONS:
        parts = urlsplit(source.url)
        path = str(PurePosixPath(parts.path).with_suffix(suffix))
        companion = Source(
            parts._replace(path=path).geturl(), str(Path(source.name).with_suffix(suffix))
        )
        companion.path.unlink(missing_ok=True)  # of other weights, which were there before
        try:
            with new_file(companion.path) as part:
                _download(companion, part)
        except _NotFound:
            print(f"{companion}: not found; Darknet's own is assumed", file=sys.stderr)


class _NotFound(UserError):
    """The server has no such file."""


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but to no other protocol, and not from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme != "http" or req.type == "https"):
            raise URLError(f"redirected to {scheme}://")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(source: Source, part: Path) -> None:
    """Write what the server sends.

    Raises:
        UserError: it does not answer, or sends less than it announced, or something else.
        OSError: the file cannot be written.
    """
    with _named_errors(source):
        url = quote(source.url, safe=string.punctuation)
        response = build_opener(_Redirects).open(Request(url), timeout=TIMEOUT)
    with response, open(part, "wb") as file:
        total = _announced_size(source, response)
        with progress_bar(total=total, desc=source.name, unit="B", unit_scale=True) as bar:
            while chunk := _read(source, response):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > MAX_BYTES:
                    raise UserError(f"{source}: more than {MAX_BYTES:,} bytes")
        if total not in (None, file.tell()):
            raise UserError(f"{source}: broke off after {file.tell():,} of {total:,} bytes")


def _announced_size(source: Source, response: HTTPResponse) -> int | None:
    """The number of bytes to come, if the server says it.

    Raises:
        UserError: it is another file than expected.
    """
    if response.headers.get_content_type() == "text/html":
        raise _NotFound(
            f"{source}: is a web page; expected the address that the file itself has, which for a "
            "file on GitHub contains /releases/download/ or /raw/"
        )
    announced = response.headers.get("Content-Length") or ""
    total = int(announced) if announced.isdecimal() else None
    if total is not None and total > MAX_BYTES:
        raise UserError(f"{source}: {total:,} bytes, expected at most {MAX_BYTES:,}")
    if total is not None and source.size not in (None, total):
        raise UserError(f"{source}: {total:,} bytes on the server, expected {source.size:,}")
    return total


def _read(source: Source, response: HTTPResponse) -> bytes:
    with _named_errors(source):
        return response.read(CHUNK)


@contextmanager
def _named_errors(source: Source) -> Iterator[None]:
    """Turn what the network raises into one line."""
    try:
        yield
    except HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise _NotFound(f"{source}: not found ({error.code}): check the address") from None
        reason = shorten(str(error.reason))
        raise UserError(f"{source}: the server answered {error.code} {reason}") from None
    except (OSError, HTTPException, ValueError, OverflowError) as error:  # a redirect may be odd
        raise UserError(
            f"{source}: cannot be downloaded: {_explain(error)}; without a network, put the file "
            f"at {source.path}"
        ) from None


def _explain(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer for {TIMEOUT:g} s"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return shorten(str(text), 160)
