from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from graphmert.documents import html_to_text, read_documents, wikitext_to_text
from graphmert.errors import DataError, FormatError
from graphmert.shards import write_table

PAGE = """<!DOCTYPE html><html><head><title>On &amp; growth</title><style>p {}</style></head>
<body><nav>Home <a href="x">next</a></nav><div role="main" class="doc">
<h1>Growth<a class="headerlink" href="#g">¶</a></h1>
<p>Cells <b>grow</b> and
   divide.<br>They stop<sup>1</sup>.
<p>An unclosed paragraph &lt;here&gt;.
<pre>int main() { return 0; }</pre>
<ul><li>one<li>two</ul><script>alert("no")</script>
<div>inner <div>nested</div> text</div></div>
<footer>Contact</footer><p>outside</p></body></html>"""


def test_html_is_reduced_to_its_running_text() -> None:
    title, text = html_to_text(PAGE)
    assert title == "On & growth"
    assert text.split("\n\n") == [
        "Growth",
        "Cells grow and divide. They stop1.",
        "An unclosed paragraph <here>.",
        "one",
        "two",
        "inner",
        "nested",
        "text",
    ]


def test_html_without_a_main_part() -> None:
    page = "<p>First.</p><form><button>Go</button></form><table><tr><td>a<td>b</table>last"
    assert html_to_text(page) == ("", "First.\n\na\n\nb\n\nlast")
    assert html_to_text("") == ("", "")
    article = '<p>out</p><div itemprop="articleBody"><p>in</p></div><p>out</p>'
    assert html_to_text(article)[1] == "in"


MARKUP = """{{Infobox|name={{nested|x}}|y=2}}<!-- hidden -->
'''Growth''' is a [[process (biology)|process]] of [[cell]]s.<ref name="a">A source.</ref>
It is [[File:x.jpg|thumb|A [[linked]] caption]] slow<ref name="a" />.
{| class="wikitable"
| cell ||
{| inner
| x
|}
|}
== History ==
* first ''item''
# second [http://example.org item two]
<math>x^2</math>Five &lt; six&nbsp;__NOTOC__
[[Category:Biology]][[de:Wachstum]]

== References ==
Nothing of this."""


def test_wiki_markup_is_reduced_to_its_running_text() -> None:
    assert wikitext_to_text(MARKUP).split("\n\n") == [
        "Growth is a process of cells. It is slow.",
        "History",
        "first item",
        "second item two Five < six",
    ]


def dump(*pages: str) -> bytes:
    body = "".join(pages)
    space = 'xmlns="http://www.mediawiki.org/xml/export-0.10/"'
    return f"<mediawiki {space}>{body}</mediawiki>".encode()


def page(number: int, text: str, *, ns: int = 0, more: str = "") -> str:
    return (
        f"<page><title>T{number}</title><ns>{ns}</ns><id>{number}</id>{more}"
        f"<revision><id>9</id><text>{text}</text></revision></page>"
    )


def test_dumps_hold_articles(tmp_path: Path) -> None:
    pages = dump(
        page(1, "One ''article''."),
        page(2, "#REDIRECT", more='<redirect title="T1"/>'),
        page(3, "Talk", ns=1),
        page(4, ""),
    )
    (tmp_path / "w.xml.bz2").write_bytes(bz2.compress(pages))
    table, ledger = read_documents([tmp_path / "w.xml.bz2"])
    assert table["doc_id"].to_pylist() == ["w.xml.bz2#1"]
    assert table["title"].to_pylist() == ["T1"]
    assert table["text"].to_pylist() == ["One article."]
    assert ledger.reasons == {"document without text": 1}
    (tmp_path / "w.xml.bz2").write_bytes(bz2.compress(pages[:-20]))
    with pytest.raises(FormatError, match="not whole XML"):
        read_documents([tmp_path / "w.xml.bz2"])
    (tmp_path / "w.xml.bz2").write_bytes(bz2.compress(pages)[:-9])
    with pytest.raises(FormatError, match="not whole"):
        read_documents([tmp_path / "w.xml.bz2"])


def debian(path: Path, pages: dict[str, bytes], *, kind: str = "xz") -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in pages.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    data = stream.getvalue()
    data = lzma.compress(data) if kind == "xz" else gzip.compress(data)

    def member(name: str, content: bytes) -> bytes:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}".encode() + b"`\n"
        return header + content + b"\n" * (len(content) % 2)

    parts = [member("debian-binary", b"2.0\n"), member("control.tar.xz", b"odd")]
    path.write_bytes(b"!<arch>\n" + b"".join([*parts, member(f"data.tar.{kind}", data)]))


@pytest.mark.parametrize("kind", ["xz", "gz"])
def test_pages_of_a_debian_package(tmp_path: Path, kind: str) -> None:
    pages = {
        "./usr/share/doc/book/html/b.html": b"<title>B</title><p>Second.</p>",
        "./usr/share/doc/book/html/a.html.gz": gzip.compress(b"<p>First.</p>"),
        "./usr/share/doc/book/copyright": b"GPL",
    }
    debian(tmp_path / "book_1.0_all.deb", pages, kind=kind)
    table, _ = read_documents([tmp_path / "book_1.0_all.deb"])
    assert table["doc_id"].to_pylist() == ["book/html/a.html.gz", "book/html/b.html"]
    assert table["text"].to_pylist() == ["First.", "Second."]


def test_broken_packages(tmp_path: Path) -> None:
    path = tmp_path / "book.deb"
    path.write_bytes(b"no archive")
    with pytest.raises(FormatError, match="not a Debian package"):
        read_documents([path])
    debian(path, {"a.html": b"<p>x"})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match="broken"):
        read_documents([path])
    debian(path, {"a.txt": b"x"})
    with pytest.raises(DataError, match="no HTML page"):
        read_documents([path])


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("Second text.")
    (folder / "deep" / "a.md").write_text("# Third")
    (folder / "a.txt.gz").write_bytes(gzip.compress("First ü.".encode()))
    (folder / "image.png").write_bytes(b"x")
    (folder / "empty.txt").write_text("  \n")
    table, ledger = read_documents([folder])
    assert table["doc_id"].to_pylist() == ["texts/a.txt.gz", "texts/b.txt", "texts/deep/a.md"]
    assert table["text"].to_pylist() == ["First ü.", "Second text.", "# Third"]
    assert ledger.to_dict()["left_out"] == {"document without text": 1, "file of another kind": 1}
    assert ledger.n_offered == 5
    left, ledger = read_documents([folder], exclude=["*/deep/*", "*.gz"])
    assert left["doc_id"].to_pylist() == ["texts/b.txt"]
    assert ledger.reasons["excluded by a pattern"] == 2


def test_records(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"id": 7, "title": "T", "abstract": "One."}) + "\n\n" + '{"text": "Two."}\n'
    )
    (tmp_path / "b.csv").write_text('doc_id,text\nx,"Three, of course."\n')
    write_table(tmp_path / "c.parquet", pa.table({"doc_id": ["y"], "text": ["Four."]}))
    table, _ = read_documents([tmp_path / name for name in ("a.jsonl", "b.csv", "c.parquet")])
    assert table["doc_id"].to_pylist() == ["7", "a.jsonl#3", "x", "y"]
    assert table["text"].to_pylist() == ["One.", "Two.", "Three, of course.", "Four."]
    assert table["title"].to_pylist() == ["T", "", "", ""]


@pytest.mark.parametrize(
    ("name", "content", "message", "where"),
    [
        ("a.jsonl", b'{"text": "x"}\n{', "not JSON", "line 2"),
        ("a.jsonl", b"[1]", "no JSON object", "line 1"),
        ("a.jsonl", b'{"body_text": "x"}', "without a text", "line 1"),
        ("a.txt", b"fine\n\xff", "not UTF-8", "line 2"),
        ("a.txt.gz", b"no gzip", "gzip file is not whole", "a.txt.gz"),
        ("a.docx", b"x", "kind that is not read", "a.docx"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, name: str, content: bytes, message: str, where: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        read_documents([tmp_path / name])
    assert where in str(caught.value.where)


def test_nothing_and_twice(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not found"):
        read_documents([tmp_path / "none"])
    with pytest.raises(DataError, match="empty"):
        read_documents([tmp_path])
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="one id"):
        read_documents([tmp_path / "a.txt", tmp_path / "a.txt"])
