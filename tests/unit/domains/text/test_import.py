from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphmert.documents.records import CorpusSettings
from graphmert.domains.text import corpus as corpus_module
from graphmert.domains.text.corpus import import_documents
from graphmert.errors import DataError, FormatError
from graphmert.shards import Ledger, n_groups
from graphmert.store import check_table

PUBMED = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle//EN" "http://nowhere.invalid/x.dtd">
<PubmedArticleSet>
{records}
</PubmedArticleSet>
"""
RECORD = """<PubmedArticle><MedlineCitation><PMID Version="{version}">{pmid}</PMID><Article>
<Journal><JournalIssue><PubDate><Year>2021</Year></PubDate></JournalIssue><Title>J. Tests</Title>
</Journal><ArticleTitle>On <i>H.
 pylori</i> &amp; CO<sub>2</sub>.</ArticleTitle>{abstract}<Language>{language}</Language></Article>
<MeshHeadingList><MeshHeading><DescriptorName UI="D1">Bacteria</DescriptorName></MeshHeading>
</MeshHeadingList></MedlineCitation></PubmedArticle>"""
ABSTRACT = (
    '<Abstract><AbstractText Label="AIM">To  see.</AbstractText>'
    "<AbstractText>It <b>was</b> é.</AbstractText></Abstract>"
)


def record(pmid: int, *, abstract: str = ABSTRACT, language: str = "eng", version: int = 1) -> str:
    return RECORD.format(pmid=pmid, abstract=abstract, language=language, version=version)


def read(path: Path, target: Path, **settings: Any) -> tuple[list[dict[str, Any]], Ledger]:
    n_documents, ledger = import_documents(path, CorpusSettings(**settings), target / "d.parquet")
    table = pq.read_table(target / "d.parquet")
    check_table("corpus/documents", table)
    assert table.num_rows == n_documents == ledger.check().n_kept
    return table.to_pylist(), ledger


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_a_mixed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "b" / "note.txt", "\ufeffCafe\u0301 is open.\r\n🧬 here.\r\n")
    write(folder / "a.jsonl", '{"id": 7, "text": "Seven.", "title": "T", "year": 2020}\n\n')
    write(folder / "c.csv.gz", gzip.compress(b'id,text\nx,"two\nlines"\n'))
    write(folder / "d.tsv", "text\tby\nTab text\tme\n")
    pq.write_table(pa.table({"id": ["p"], "text": ["Parquet text."]}), folder / "e.parquet")
    write(folder / "f.xml", PUBMED.format(records=record(11)))
    write(folder / "g.pdf", b"%PDF")
    write(folder / ".hidden.txt", "no")
    rows, ledger = read(folder, tmp_path)
    found = {row["doc_id"]: row for row in rows}
    assert [row["source"] for row in rows] == [
        "a.jsonl", "b/note.txt", "c.csv.gz", "d.tsv", "e.parquet", "f.xml",
    ]  # fmt: skip
    assert found["b/note.txt"]["text"] == "Cafe\u0301 is open.\r\n🧬 here.\r\n"
    assert found["7"]["title"] == "T"
    assert json.loads(found["7"]["meta"]) == {"line": 1, "fields": {"year": 2020}}
    assert found["x"]["text"] == "two\nlines"
    assert json.loads(rows[3]["meta"]) == {"line": 2, "fields": {"by": "me"}}
    assert rows[3]["doc_id"].startswith("d.tsv#")
    assert found["pmid:11"]["text"] == "On H. pylori & CO2.\n\nAIM: To see.\nIt was é."
    assert json.loads(found["pmid:11"]["meta"])["mesh"] == ["Bacteria"]
    assert ledger.reasons == {"file of no known kind": 1, "hidden file": 1}


def test_lines_are_documents_named_by_their_content(tmp_path: Path) -> None:
    path = write(tmp_path / "lines.txt", "One.\r\nTwo.\n\nOne.\nLast")
    rows, ledger = read(path, tmp_path, text_unit="line")
    assert [row["text"] for row in rows] == ["One.", "Two.", "Last"]
    assert ledger.reasons == {"empty text": 1, "same text as an earlier document": 1}
    write(path, "New.\nOne.\nTwo.\n")
    again, _ = read(path, tmp_path, text_unit="line")
    assert [row["doc_id"] for row in again[1:]] == [row["doc_id"] for row in rows[:2]]


def test_pubmed_languages_abstracts_and_versions(tmp_path: Path) -> None:
    no_abstract, other = record(2, abstract=""), ABSTRACT.replace("é", "e")
    records = record(1) + no_abstract + record(3, language="ger", abstract=other)
    records += record(1, abstract=ABSTRACT.replace("é", "new"), version=2)
    path = write(tmp_path / "p.xml.gz", gzip.compress(PUBMED.format(records=records).encode()))
    rows, ledger = read(path, tmp_path, languages=("eng",))
    assert [row["doc_id"] for row in rows] == ["pmid:1"]
    assert ledger.reasons == {
        "citation without an abstract": 1,
        "in another language": 1,
        "another version of a record already read": 1,
    }


def test_short_texts_and_other_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "key,body\na,short\nb,a longer text\n")
    rows, ledger = read(path, tmp_path, text_column="body", id_column="key", min_chars=6)
    assert [(row["doc_id"], row["text"]) for row in rows] == [("b", "a longer text")]
    assert ledger.reasons == {"shorter than 6 characters": 1}


def test_a_part_of_the_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", "\n".join(f"Line {i}." for i in [0, 0, 1, 2, 3, 4, 5, 6]))
    rows, ledger = read(path, tmp_path, text_unit="line", take_every=3)
    assert [row["text"] for row in rows] == ["Line 0.", "Line 3.", "Line 6."]
    assert ledger.reasons == {
        "not taken (corpus.take_every)": 4,
        "same text as an earlier document": 1,
    }


def test_groups_do_not_depend_on_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "GROUP_DOCUMENTS", 3)
    lines = [json.dumps({"id": f"d{i}", "text": f"Text {i}."}) for i in range(8)]
    one = write(tmp_path / "one" / "a.jsonl", "\n".join(lines))
    write(tmp_path / "two" / "a.jsonl", "\n".join(lines[:5]))
    write(tmp_path / "two" / "b.jsonl", "\n".join(lines[5:]))
    for name, path in (("x", one), ("y", tmp_path / "two")):
        read(path, tmp_path / name)
        assert n_groups(tmp_path / name / "d.parquet") == 3
    tables = [
        pq.read_table(tmp_path / name / "d.parquet", columns=["doc_id", "text"]) for name in "xy"
    ]
    assert tables[0] == tables[1]


_DECLARED = "<!DOCTYPE PubmedArticleSet [{}]><PubmedArticleSet>{}</PubmedArticleSet>"
ENTITY_OUTSIDE = _DECLARED.format('<!ENTITY x SYSTEM "file:///etc/hostname">', "&x;")
ENTITY_NESTED = _DECLARED.format('<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">', "&b;")
ENTITY_PARAMETER = _DECLARED.format('<!ENTITY % a SYSTEM "http://nowhere.invalid/x"> %a;', "")

BAD: dict[str, tuple[str, str | bytes, str, str]] = {
    "not utf-8": ("x.txt", b"ok\nbad \xff\n", "line 2", "byte 0xff at offset 4"),
    "not utf-8 row": ("x.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2", "not UTF-8"),
    "broken gzip": ("x.txt.gz", gzip.compress(b"a" * 999)[:-9], "x.txt.gz", "not whole"),
    "no json": ("x.jsonl", '{"text": "a"}\n{"text"', "line 2", "not JSON"),
    "nan": ("x.jsonl", '{"text": "a", "n": NaN}', "line 1", "not JSON"),
    "deep json": ("x.jsonl", '{"text": ' + "[" * 100_000, "line 1", "not JSON"),
    "no object": ("x.jsonl", '"a"\n', "line 1", "no JSON object"),
    "no text column": ("x.csv", "id,body\na,b\n", "line 2", "corpus.text_column"),
    "short row": ("x.csv", "id,text\na\n", "line 2", "got 1, expected 2"),
    "column twice": ("x.csv", "text,text\na,b\n", "line 1", "twice"),
    "number": ("x.jsonl", '{"text": 1.5}', "line 1, text", "no text"),
    "surrogate": ("x.jsonl", '{"text": "a\\ud800b"}', "line 1, text", "surrogate"),
    "no parquet": ("x.parquet", b"PAR1", "x.parquet", "Parquet"),
    "other xml": ("x.xml", "<html><p>a</p></html>", "line 1", "not PubMed's"),
    "cut xml": ("x.xml", PUBMED.format(records=record(1))[:-30], "line 9", "cannot be read"),
    "no pmid": ("x.xml", PUBMED.format(records="<PubmedArticle/>"), "line 4", "no PMID"),
    "external entity": ("x.xml", ENTITY_OUTSIDE, "line 1", "declares an entity"),
    "nested entity": ("x.xml", ENTITY_NESTED, "line 1", "declares an entity"),
    "parameter entity": ("x.xml", ENTITY_PARAMETER, "line 1", "declares an entity"),
    "unknown kind": ("x.docx", b"PK", "x.docx", "no known kind"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_name_the_place_and_leave_nothing(tmp_path: Path, case: str) -> None:
    name, content, where, words = BAD[case]
    path = write(tmp_path / "in" / name, content)
    with pytest.raises(FormatError) as caught:
        read(path, tmp_path)
    assert name in str(caught.value.where)
    assert where in str(caught.value.where)
    assert words in str(caught.value)
    assert [one.name for one in tmp_path.iterdir()] == ["in"]


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(DataError, match="corpus is empty"):
        read(folder, tmp_path)
    write(folder / "a.txt", " \n")
    with pytest.raises(DataError, match="1 empty text"):
        read(folder, tmp_path)
    with pytest.raises(FormatError, match="no such corpus"):
        read(tmp_path / "gone", tmp_path)
    assert not (tmp_path / "d.parquet").exists()


def test_one_id_with_two_texts_names_both_places(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "id,text\na,one\na,two\n")
    with pytest.raises(DataError, match=r"x.csv, line 3.*first at .*x.csv, line 2"):
        read(path, tmp_path)
