"""One Pascal VOC annotation: XML in any encoding, checked value by value."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from utils.core.class_names import name_problem
from utils.core.errors import UserError, shorten
from utils.core.files import ReadError, is_outage, read_file
from utils.core.text import MAX_BYTES, TextError, decode_text, detect_encoding, stated_encoding
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
        foreign: the content of the file, if its encoding must be detected first.
    """

    objects: tuple[VocObject, ...] = ()
    size: tuple[int, int] | None = None
    encoding: str = "utf-8"
    problem: str = ""
    foreign: bytes = b""


def read_annotations(paths: Sequence[Path], progress: bool = True) -> list[VocAnnotation]:
    """Read XML files; the encoding of those that are not UTF-8 and declare none is detected.

    It is detected for all of them together: the same name must not be read in two ways.

    Raises:
        ReadError: the storage is out of reach.
        UserError: that encoding is unclear.
    """
    annotations = map_in_threads(_read, paths, 2, "reading annotations", progress)
    foreign = {
        index: annotation.foreign
        for index, annotation in enumerate(annotations)
        if annotation.foreign
    }
    if foreign:
        try:
            encoding = detect_encoding(b"\n".join(foreign.values()))
        except TextError as error:
            first = paths[next(iter(foreign))]
            raise UserError(f"{first}, one of {len(foreign)} such annotations: {error}") from None
        for index, data in foreign.items():
            annotations[index] = _parse(data, encoding)
    return annotations


def _read(path: Path) -> VocAnnotation:
    try:
        data = read_file(path, max_bytes=MAX_BYTES)
    except ReadError as error:
        if is_outage(error):
            raise
        return VocAnnotation(problem=str(error).removeprefix(f"{path}: "))
    match = ENCODING.match(data)
    declared = match.group(1).decode() if match else None
    if stated_encoding(data, declared) is None:
        return VocAnnotation(foreign=data)
    return _parse(data, declared)


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
    return "" if child is None else (child.text or "").strip()


def _only(parent: ElementTree.Element, tag: str, where: str) -> ElementTree.Element | None:
    children = parent.findall(tag)
    if len(children) > 1:
        raise BadValue(f"{where}: expected one <{tag}>, got {len(children)}")
    return children[0] if children else None
