"""One Pascal VOC annotation: XML in any encoding, checked value by value."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from utils.core.class_names import name_problem
from utils.core.errors import shorten
from utils.core.inputs import ReadError, is_outage, read_file
from utils.core.text import (
    MAX_BYTES,
    SINGLE_BYTE,
    TextError,
    decode_text,
    detect_encoding,
    is_detectable,
    may_be_multibyte,
    stated_encoding,
)
from utils.data.checks import map_in_threads
from utils.data.readers.values import BadValue, parse_flag, parse_number, parse_size

ENCODING = re.compile(rb"""\s*<\?xml[^>]*\sencoding\s*=\s*["']([\w.:-]+)["']""")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """One object.

    Attributes:
        name: its class.
        box: xmin, ymin, xmax, ymax, as written.
        difficult: the flag of that name.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VocAnnotation(NamedTuple):
    """What an XML file says about its image.

    Attributes:
        objects: the objects.
        size: (width, height) in pixels, `None` if it states none.
        encoding: encoding of the file.
        problem: why the file cannot be used; empty if it can.
        unclear: the content of the file, if its encoding must be detected, or may be that of
            the other files rather than UTF-8.
    """

    objects: tuple[VocObject, ...] = ()
    size: tuple[int, int] | None = None
    encoding: str = "utf-8"
    problem: str = ""
    unclear: bytes = b""


def read_annotations(paths: Sequence[Path], progress: bool = True) -> list[VocAnnotation]:
    """Read XML files; the encoding of those that are not UTF-8 and declare none is detected.

    It is detected for all of them together, so that the same name is not read in two ways; if it
    remains unclear, for each of them.

    Raises:
        ReadError: the storage is out of reach.
    """
    annotations = map_in_threads(_read, paths, 2, "reading annotations", progress)
    unclear = {
        index: annotation.unclear
        for index, annotation in enumerate(annotations)
        if annotation.unclear
    }
    foreign = [data for data in unclear.values() if stated_encoding(data) is None]
    if not foreign:
        return annotations
    encoding = _common_encoding(foreign)
    for index, data in unclear.items():
        if stated_encoding(data) is None or (encoding and encoding not in SINGLE_BYTE):
            annotations[index] = _parse(data, encoding)
    return annotations


def _common_encoding(texts: Sequence[bytes]) -> str | None:
    """The encoding of texts that are not UTF-8; `None` if it is unclear."""
    possible = [text for text in texts if is_detectable(text)]
    try:
        return detect_encoding(b"\n".join(possible)) if possible else None
    except TextError:
        return None


def _read(path: Path) -> VocAnnotation:
    try:
        data = read_file(path, max_bytes=MAX_BYTES)
    except ReadError as error:
        if is_outage(error):
            raise
        return VocAnnotation(problem=str(error).removeprefix(f"{path}: "))
    match = ENCODING.match(data)
    declared = match.group(1).decode() if match else None
    encoding = stated_encoding(data, declared)
    if encoding is None:
        return VocAnnotation(unclear=data)
    is_unclear = encoding == "utf-8" and declared is None and may_be_multibyte(data)
    return _parse(data, declared)._replace(unclear=data if is_unclear else b"")


def _parse(data: bytes, declared: str | None) -> VocAnnotation:
    try:
        text, encoding = decode_text(data, declared)
        root = _parse_xml(text)
        nodes = enumerate(root.findall("object"), 1)
        objects = tuple(_read_object(node, f"object {number}") for number, node in nodes)
        size = _only(root, "size", "annotation")
        return VocAnnotation(objects, None if size is None else _stated_size(size), encoding)
    except (BadValue, TextError) as error:
        return VocAnnotation(problem=str(error))
    except ElementTree.ParseError as error:
        return VocAnnotation(problem=f"not valid XML: {error}")


def _parse_xml(text: str) -> ElementTree.Element:
    """The root; names of elements are in lower case and without namespaces."""
    if "<!ENTITY" in text:  # they may grow without bound
        raise BadValue("defines entities, expected plain XML")
    root = ElementTree.fromstring(text.strip())
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2].lower()
    if root.tag != "annotation":
        raise BadValue(f"expected <annotation>, got <{shorten(root.tag, 40)}>")
    if len(list(root.iter("object"))) != len(root.findall("object")):
        raise BadValue("expected every <object> directly in <annotation>")
    return root


def _read_object(node: ElementTree.Element, where: str) -> VocObject:
    name = _text(node, "name", where)
    problem = name_problem(name)
    if problem:
        raise BadValue(f"{where}: {problem}")
    bndbox = _only(node, "bndbox", where)
    if bndbox is None:
        raise BadValue(f"{where}: expected <bndbox>, got none")
    x1, y1, x2, y2 = (parse_number(_text(bndbox, key, where), f"{where}: {key}") for key in CORNERS)
    difficult = parse_flag(_text(node, "difficult", where), f"{where}: difficult")
    return VocObject(name, (x1, y1, x2, y2), difficult)


def _stated_size(node: ElementTree.Element) -> tuple[int, int] | None:
    return parse_size(_text(node, "width", "size"), _text(node, "height", "size"))


def _text(parent: ElementTree.Element, tag: str, where: str) -> str:
    """The text of the child with a tag, stripped; empty if there is none."""
    child = _only(parent, tag, where)
    if child is None:
        return ""
    if len(child):
        raise BadValue(f"{where}: {tag}: expected text, got <{shorten(child[0].tag, 40)}>")
    return (child.text or "").strip()


def _only(parent: ElementTree.Element, tag: str, where: str) -> ElementTree.Element | None:
    children = parent.findall(tag)
    if len(children) > 1:
        raise BadValue(f"{where}: expected one <{tag}>, got {len(children)}")
    return children[0] if children else None
