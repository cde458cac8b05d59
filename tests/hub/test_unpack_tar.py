"""Archives from strangers: the folder is complete or absent, and nothing is written elsewhere."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imtrans.errors import DataError
from imtrans.hub.download import unpack_tar

CONTENT = {"train/1.jpg": b"one" * 500, "train/2.jpg": b"", "val/deep/3.jpg": b"three"}
NOT_PLAIN = "a/2 is neither a file nor a folder"


def tar_member(name, content=b"x", kind=tarfile.REGTYPE, **more):
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(content)
    for attribute, value in more.items():
        setattr(member, attribute, value)
    return member, content


def tar(*members, form=tarfile.GNU_FORMAT):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def tar_gz(*members, **settings):
    return gzip.compress(tar(*members, **settings))


def packed(files):
    return tar_gz(*(tar_member(name, content) for name, content in files))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def unpacked(tmp_path, content, *, max_bytes=2**20, **settings):
    archive = tmp_path / "a.archive"
    archive.write_bytes(content)
    unpack_tar(archive, tmp_path / "out", max_bytes=max_bytes, **settings)
    return files(tmp_path / "out")


def refusal(tmp_path, content, **settings):
    """The reason; nothing may be left behind."""
    with pytest.raises(DataError) as caught:
        unpacked(tmp_path, content, **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["a.archive"]
    text, start, end = str(caught.value), f"{tmp_path / 'a.archive'} cannot be unpacked: ", ". Nothing was unpacked."
    assert text.startswith(start)
    assert text.endswith(end)
    assert "\n" not in text
    return text.removeprefix(start).removesuffix(end)


def test_files_are_unpacked(tmp_path):
    assert unpacked(tmp_path, packed(CONTENT.items())) == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.archive", "out"]


def test_the_top_folder_becomes_the_target(tmp_path):
    content = packed([(f"top/{name}", content) for name, content in CONTENT.items()])
    assert unpacked(tmp_path, content, top="top") == CONTENT


@pytest.mark.parametrize("name", ["other/1.jpg", "1.jpg", "topping/1.jpg"])
def test_a_member_beside_the_top_folder(tmp_path, name):
    for content in (packed([("top/1.jpg", b"x"), (name, b"x")]), packed([(name, b"x")])):
        assert refusal(tmp_path, content, top="top") == "it does not hold just the folder top"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_form_of_tar_with_folders_dots_and_long_names(tmp_path, form):
    long = "n" * 60 + "/" + "m" * 90 + ".jpg" if form == tarfile.USTAR_FORMAT else "d/" + "é" * 110 + ".jpg"
    folder = tar_member("./", b"", tarfile.DIRTYPE)
    content = tar_gz(
        folder, tar_member("./d", b"", tarfile.DIRTYPE), tar_member("./d/1.jpg"), tar_member(long), folder, form=form
    )
    assert unpacked(tmp_path, content) == {"d/1.jpg": b"x", long: b"x"}


def test_special_permissions_are_not_taken(tmp_path):
    unpacked(tmp_path, tar_gz(tar_member("a/1", mode=0o6777, uid=0), tar_member("a/2", mode=0)))
    modes = [p.stat().st_mode & 0o7777 for p in sorted((tmp_path / "out" / "a").iterdir())]
    assert modes == [0o755, 0o600]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a/../../../x", "../out/x"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    assert "outside the destination" in refusal(tmp_path, packed([("a/1.jpg", b"x"), (name, b"x")]))


def test_an_absolute_name_stays_below_the_folder(tmp_path):
    assert unpacked(tmp_path, packed([("/etc/passwd", b"x")])) == {"etc/passwd": b"x"}


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE", "GNUTYPE_SPARSE"])
@pytest.mark.parametrize("link", ["1", "/etc/passwd", "../../x"])
def test_members_that_are_no_files_are_refused(tmp_path, kind, link):
    strange, _ = tar_member("a/2", b"", getattr(tarfile, kind), linkname=link)
    assert refusal(tmp_path, tar_gz(tar_member("a/1"), (strange, b""))) == NOT_PLAIN


def test_a_sparse_file_in_the_newer_form_is_refused(tmp_path):
    sparse = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50), "GNU.sparse.numblocks": "1"}
    content = tar_gz(tar_member("a/2", pax_headers=sparse), form=tarfile.PAX_FORMAT)
    assert refusal(tmp_path, content) == NOT_PLAIN


# Too much, too little


def test_more_bytes_than_allowed(tmp_path):
    content = packed(CONTENT.items())
    size = len(gzip.decompress(content))
    assert refusal(tmp_path, content, max_bytes=size - 1) == f"it unpacks to more than {size - 1} bytes"
    assert unpacked(tmp_path, content, max_bytes=size) == CONTENT


@pytest.mark.parametrize("bomb", [packed([("a", bytes(2**24))]), gzip.compress(tar(tar_member("a")) + bytes(2**24))])
def test_a_bomb_is_not_inflated_to_its_end(tmp_path, bomb):
    assert len(bomb) < 2**16
    assert refusal(tmp_path, bomb) == "it unpacks to more than 1048576 bytes"


def test_a_member_that_declares_more_than_there_is(tmp_path):
    member, _ = tar_member("a", b"")
    for member.size in (5000, 2**62):
        block = member.tobuf(tarfile.GNU_FORMAT)
        assert refusal(tmp_path, gzip.compress(block + bytes(1024))) == "unexpected end of data"


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_as_large_as_a_bomb(tmp_path, kind):
    member, _ = tar_member("a", b"", kind)
    member.size = 2**26
    content = gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(2**26))
    assert refusal(tmp_path, content) == "it unpacks to more than 1048576 bytes"


def test_headers_without_end(tmp_path):
    header, _ = tar_member("h", b"", tarfile.XHDTYPE)
    refusal(tmp_path, gzip.compress(header.tobuf(tarfile.GNU_FORMAT) * 5000 + bytes(1024)), max_bytes=2**24)


def test_what_is_no_archive(tmp_path):
    assert refusal(tmp_path, b"") == "empty file"
    assert refusal(tmp_path, b"<!doctype html>") == "Not a gzipped file (b'<!')"
    assert refusal(tmp_path, tar(tar_member("a"))).startswith("Not a gzipped file ")
    assert refusal(tmp_path, gzip.compress(b"no tar" * 200)) == "invalid header"
    assert refusal(tmp_path, tar_gz()) == "it is empty"


def test_a_missing_archive(tmp_path):
    with pytest.raises(DataError) as caught:
        unpack_tar(tmp_path / "no.tar.gz", tmp_path / "out", max_bytes=1)
    assert str(caught.value) == (
        f"{tmp_path / 'no.tar.gz'} cannot be unpacked: No such file or directory. Nothing was unpacked."
    )


def test_a_folder_that_exists_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError) as caught:
        unpacked(tmp_path, packed(CONTENT.items()))
    assert str(caught.value) == (
        f"{tmp_path / 'a.archive'} cannot be unpacked: {tmp_path / 'out'} exists. Remove it, or unpack elsewhere."
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_python_without_extraction_filters(tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DataError) as caught:
        unpacked(tmp_path, packed(CONTENT.items()))
    assert str(caught.value) == (
        f"{tmp_path / 'a.archive'} cannot be unpacked: update Python to 3.10.12, 3.11.4 or newer."
    )


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    content = packed(CONTENT.items())
    monkeypatch.setattr(tarfile, "copyfileobj", full)
    assert refusal(tmp_path, content) == "No space left on device"


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpacked(tmp_path, packed(CONTENT.items()))
    assert [p.name for p in tmp_path.iterdir()] == ["a.archive"]


# For all


@given(data=st.data())
def test_a_cut_archive_leaves_nothing(tmp_path_factory, data):
    content = packed(CONTENT.items())
    refusal(tmp_path_factory.mktemp("cut"), content[: data.draw(st.integers(0, len(content) - 1))])


@given(data=st.data())
@settings(max_examples=200)
def test_a_damaged_archive_is_unpacked_whole_or_not_at_all(tmp_path_factory, data):
    content = bytearray(packed(CONTENT.items()))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check_nothing_lands_elsewhere(tmp_path_factory.mktemp("damaged"), bytes(content))


@given(data=st.data())
@settings(max_examples=200)
def test_a_damaged_tar_in_a_sound_gzip_lands_nowhere_else(tmp_path_factory, data):
    content = bytearray(tar(*(tar_member(*pair) for pair in CONTENT.items()))[:4096])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    check_nothing_lands_elsewhere(tmp_path_factory.mktemp("damaged"), gzip.compress(bytes(content), 1))


@given(names=st.lists(st.text(st.sampled_from("ab./\\:~\n é"), min_size=1, max_size=12), min_size=1, max_size=4))
@settings(max_examples=200)
def test_no_names_write_elsewhere(tmp_path_factory, names):
    check_nothing_lands_elsewhere(tmp_path_factory.mktemp("names"), tar_gz(*(tar_member(name) for name in names)))


def check_nothing_lands_elsewhere(tmp_path, content):
    deep = tmp_path / "one" / "two"
    deep.mkdir(parents=True)
    (deep / "a").write_bytes(content)
    try:
        unpack_tar(deep / "a", deep / "out", max_bytes=2**20)
        expected = ["a", "out"]
    except DataError:
        expected = ["a"]
    assert sorted(os.listdir(deep)) == expected
    assert os.listdir(deep.parent) == ["two"]
    assert os.listdir(tmp_path) == ["one"]
    assert not any(p.is_symlink() for p in deep.rglob("*"))
