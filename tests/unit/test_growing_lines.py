"""Lines of a file while it is written."""

from hookbench.growing_lines import GrowingLines


def test_each_line_comes_once_and_whole(tmp_path):
    path = tmp_path / "lines"
    lines = GrowingLines(path)
    assert lines.new() == []
    for written, found in (
        (b"one\ntw", [b"one"]),
        (b"", []),
        (b"o", []),
        (b"\nthree\n\nfour", [b"two", b"three", b""]),
        (b"\n", [b"four"]),
    ):
        with path.open("ab") as file:
            file.write(written)
        assert lines.new() == found
    assert GrowingLines(path).new() == [b"one", b"two", b"three", b"", b"four"]
