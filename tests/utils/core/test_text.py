"""Text in any encoding: stated, UTF-8, or detected from short lists of class names."""

import codecs
import os

import pytest

from utils.core.inputs import ReadError
from utils.core.text import TextError, decode_text, detect_encoding, read_text, split_lines

LISTS = {  # short class lists, as users have them
    "gb18030": ("汽车 行人 交通灯", "裂纹 划痕 夹杂", "安全帽 反光衣", "猫 狗 马", "肿瘤 结节"),
    "cp950": ("汽車 行人 紅綠燈", "裂痕 刮傷 髒污", "安全帽 反光背心", "蘋果 香蕉 馬鈴薯"),
    "cp932": ("自転車 歩行者 信号機", "キズ ひび割れ 打痕", "猫 犬 うさぎ", "りんご バナナ"),
    "cp949": ("자동차 보행자 신호등", "균열 긁힘 오염", "안전모 마스크", "고양이 강아지 호랑이"),
    "cp1252": ("vélo piéton", "fenêtre", "Schlüssel Löffel", "camión señal", "maçã pão"),
    "cp1251": ("машина грузовик", "трещина царапина", "кошка собака"),
    "euc_jp": ("自転車 トラック バス", "キズ ひび割れ"),
}
CASES = [(encoding, words) for encoding, lists in LISTS.items() for words in lists]


@pytest.mark.parametrize(("encoding", "words"), CASES)
def test_short_class_lists_are_detected(encoding, words):
    text = "\n".join([*words.split(), "OK", "person"]) + "\n"
    assert decode_text(text.encode(encoding)) == (text, encoding)


@pytest.mark.parametrize("declared", [None, "GBK", "latin-1"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_goes_before_a_declaration(encoding, declared):
    data = "猫\nnaïf\n".encode(encoding)
    assert decode_text(data, declared) == ("猫\nnaïf\n", encoding.removesuffix("-sig"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(encoding):
    assert decode_text("猫\r\ndog\r\n".encode(encoding)) == ("猫\r\ndog\r\n", encoding)


@pytest.mark.parametrize(
    ("declared", "encoding", "text", "found"),
    [
        ("GBK", "gbk", "猫", "gb18030"),
        ("gb2312", "gbk", "镕", "gb18030"),  # declared by tools that write all of GBK
        ("Shift_JIS", "cp932", "①猫", "cp932"),
        ("iso-8859-1", "cp1252", "5 €", "cp1252"),
        ("ascii", "utf-8", "猫", "utf-8"),
        ("utf-8", "gbk", "安全帽 反光衣", "gb18030"),
        ("utf-16", "utf-8", "plain", "utf-8"),
        ("no-such-encoding", "utf-8", "猫", "utf-8"),
    ],
)
def test_a_declaration_counts_if_it_can_be_true(declared, encoding, text, found):
    assert decode_text(text.encode(encoding), declared) == (text, found)


@pytest.mark.parametrize(
    "codec", ["rot13", "base64", "unicode_escape", "utf-7", "idna", "punycode", "cp037", "mbcs"]
)
def test_a_codec_that_changes_ascii_is_no_declaration(codec):
    assert decode_text("猫 \\x41 +AGE-".encode(), codec).text == "猫 \\x41 +AGE-"


def test_an_unclear_encoding_is_refused_with_both_readings():
    with pytest.raises(TextError, match=r"may be gb18030 \('汽车'\) or .*save it as UTF-8"):
        decode_text("汽车".encode("gbk"))
    assert detect_encoding("汽车\n红绿灯".encode("gbk")) == "gb18030"


def test_a_repeated_line_is_evidence_only_once():
    with pytest.raises(TextError, match="may be"):
        decode_text("汽车\n".encode("gbk") * 1000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\0c", r"line 2: not text: has the character U\+0000"),
        (b"a\0\nb", "not text"),
        (b"a\x1a", r"U\+001A"),
        (codecs.BOM_UTF16_LE + b"a", "not valid UTF-16"),
        (bytes(range(256)) * 3, "not text"),
    ],
)
def test_what_is_not_text_is_refused(data, message):
    with pytest.raises(TextError, match=message):
        decode_text(data)


def test_lines_end_as_on_any_system_and_nowhere_else():
    assert split_lines("a\r\n b \rc\u2028d\x0ce\n\n") == ["a", "b", "c\u2028d\x0ce", ""]


def test_files_are_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("vélo\n".encode("latin-1"))
    assert read_text(tmp_path / "a.txt") == ("vélo\n", "cp1252")
    (tmp_path / "a.txt").write_bytes(b"\0")
    with pytest.raises(ReadError, match=r"^data\.classes: .*a\.txt: line 1: not text"):
        read_text(tmp_path / "a.txt", "data.classes:")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ReadError, match="is a FIFO"):
        read_text(tmp_path / "fifo")
