"""The page of `make test-all` tells what passed, what did not and why."""

from pathlib import Path

from tests.summary import page, read

XML = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_long" time="12.4"/>
<testcase classname="tests.test_a" name="test_short" time="0.1"/>
<testcase classname="tests.test_b" name="test_gpu" time="0"><skipped message="no CUDA&#10;device"/></testcase>
<testcase classname="tests.test_b" name="test_wrong" time="1"><failure message="assert 1 == 2"/></testcase>
</testsuite></testsuites>"""


def test_the_page_lists_what_did_not_pass_and_what_took_long(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(XML)
    text = page(read(tmp_path / "junit.xml"))
    assert "2 passed, 1 skipped, 1 failed; 14 s of tests" in text
    assert "| tests.test_b::test_gpu | skipped | no CUDA device |" in text
    assert "| tests.test_b::test_wrong | failed | assert 1 == 2 |" in text
    assert "| tests.test_a::test_long | 12 |" in text
    assert "test_short" not in text
