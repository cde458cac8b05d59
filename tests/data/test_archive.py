import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imtrans.data.archive import unpack
from imtrans.errors import ArgumentError, DataError

CONTENT = {"train/1.jpg": b"one" * 500, "train/2.jpg": b"", "val/deep/3.jpg": b"three"}


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


def zip_member(name, content=b"x", mode=0o100644, compress=zipfile.ZIP_DEFLATED):
    member = zipfile.ZipInfo(name)
    member.external_attr, member.compress_type = mode << 16, compress
    return member, content


def zipped(*members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, content in members:
            archive.writestr(member, content)
    return packed.getvalue()


PACKERS = {"tar": (tar_gz, tar_member), "zip": (zipped, zip_member)}


@pytest.fixture(params=PACKERS)
def packer(request):
    """Makes an archive of names, each with a content, in each kind of archive."""
    pack, member = PACKERS[request.param]
    return lambda files: pack(*(member(name, content) for name, content in files))


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def unpacked(tmp_path, content, **limits):
    archive = tmp_path / "a.archive"
    archive.write_bytes(content)
    unpack(archive, tmp_path / "out", **limits)
    return files(tmp_path / "out")


def refusal(tmp_path, content, **limits):
    """The message, after the archive's name; nothing may be left behind."""
    with pytest.raises(DataError) as caught:
        unpacked(tmp_path, content, **limits)
    assert [p.name for p in tmp_path.iterdir()] == ["a.archive"]
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "a.archive"))
    assert text.endswith(". Nothing was unpacked.")
    assert "\n" not in text
    return text.removeprefix(str(tmp_path / "a.archive")).removesuffix(" Nothing was unpacked.")


def test_files_are_unpacked(tmp_path, packer):
    assert unpacked(tmp_path, packer(CONTENT.items())) == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.archive", "out"]


def test_the_top_folder_stands_for_the_target(tmp_path, packer):
    content = packer([(f"top/{name}", content) for name, content in CONTENT.items()])
    assert unpacked(tmp_path, content, top="top") == CONTENT


@pytest.mark.parametrize("name", ["other/1.jpg", "1.jpg", "topping/1.jpg"])
def test_a_member_beside_the_top_folder(tmp_path, packer, name):
    content = packer([("top/1.jpg", b"x"), (name, b"x")])
    assert refusal(tmp_path, content, top="top") == f" is refused: its member '{name}' is not in the folder top."


def test_a_file_instead_of_the_top_folder(tmp_path, packer):
    assert "its member 'top' has the name of another one" in refusal(tmp_path, packer([("top", b"x")]), top="top")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_form_of_tar_with_folders_dots_and_long_names(tmp_path, form):
    long = "n" * 60 + "/" + "m" * 90 + ".jpg" if form == tarfile.USTAR_FORMAT else "d/" + "é" * 110 + ".jpg"
    folder = tar_member("./", b"", tarfile.DIRTYPE)
    content = tar_gz(
        folder, tar_member("./d", b"", tarfile.DIRTYPE), tar_member("./d/1.jpg"), tar_member(long), folder, form=form
    )
    assert unpacked(tmp_path, content) == {"d/1.jpg": b"x", long: b"x"}


def test_permissions_and_owners_are_not_taken(tmp_path):
    unpacked(tmp_path, tar_gz(tar_member("a/1", mode=0o6777, uid=0), tar_member("a/2", mode=0)))
    plain = tmp_path / "plain"
    plain.touch()
    assert {p.stat().st_mode for p in (tmp_path / "out" / "a").iterdir()} == {plain.stat().st_mode}
    (tmp_path / "folder").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "folder").stat().st_mode


NAMES = {
    "/etc/passwd": "has an absolute path",
    "//host/share": "has an absolute path",
    "C:/x": "has an absolute path",
    "C:x": "has an absolute path",
    "../x": "climbs out of the folder",
    "a/../../x": "climbs out of the folder",
    "a/..": "climbs out of the folder",
    "a\\..\\x": "has a name that not every system can hold",
    "a\nb": "has a name that not every system can hold",
    "\x1b[2J": "has a name that not every system can hold",
    "x" * 256: "has a name that is too long",
    "é" * 128: "has a name that is too long",
    "d/" * 600 + "x": "has a name that is too long",
}


@pytest.mark.parametrize(("name", "objection"), NAMES.items(), ids=[repr(name[:20]) for name in NAMES])
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(tmp_path, packer, name, objection):
    text = refusal(tmp_path, packer([("a/1.jpg", b"x"), (name, b"x")]))
    assert text.startswith(" is refused: its member '")
    assert text.endswith(f"' {objection}.")


COLLISIONS = [("a", "a"), ("a", "A"), ("é", "e\u0301"), ("a", "./a"), ("a/b", "a"), ("a", "a/b"), ("ß", "ss")]


@pytest.mark.parametrize("names", COLLISIONS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_place_are_refused(tmp_path, packer, names):
    text = refusal(tmp_path, packer([(name, b"x") for name in names]))
    reason = "lies in what is a file" if names == ("a", "a/b") else "has the name of another one"
    assert text == f" is refused: its member '{names[1]}' {reason}."


def test_a_folder_in_the_place_of_a_file(tmp_path):
    content = tar_gz(tar_member("a"), tar_member("a", b"", tarfile.DIRTYPE))
    assert "its member 'a' is a folder, and a file of that name is there" in refusal(tmp_path, content)


KINDS = ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE", "GNUTYPE_SPARSE"]
STRANGE = "is a link, a device or another thing that is no file and no folder"


@pytest.mark.parametrize("kind", KINDS)
def test_tar_members_that_are_no_files_are_refused(tmp_path, kind):
    strange, _ = tar_member("a/2", b"", getattr(tarfile, kind), linkname="1")
    text = refusal(tmp_path, tar_gz(tar_member("a/1"), (strange, b"")))
    assert text == f" is refused: its member 'a/2' {STRANGE}."


def test_a_sparse_file_in_the_newer_form_is_refused(tmp_path):
    sparse = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**50), "GNU.sparse.numblocks": "1"}
    content = tar_gz(tar_member("a", pax_headers=sparse), form=tarfile.PAX_FORMAT)
    assert STRANGE in refusal(tmp_path, content)


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777, 0o040755])
def test_zip_members_that_are_no_files_are_refused(tmp_path, mode):
    text = refusal(tmp_path, zipped(zip_member("a/1"), zip_member("a/2", mode=mode)))
    assert text == f" is refused: its member 'a/2' {STRANGE}."


def test_zip_members_that_are_encrypted_or_packed_otherwise(tmp_path):
    content = bytearray(zipped(zip_member("a")))
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + at] |= 1
    assert "its member 'a' is encrypted" in refusal(tmp_path, bytes(content))
    content = zipped(zip_member("a", compress=zipfile.ZIP_LZMA))
    assert "its member 'a' is compressed in a way that is not read here" in refusal(tmp_path, content)


def test_a_zip_name_with_a_zero(tmp_path):
    content = zipped(zip_member("a!b")).replace(b"a!b", b"a\0b")
    assert "its member 'a\\x00b' has a name that not every system can hold" in refusal(tmp_path, content)


# Too many, too much, too little


def test_more_members_than_allowed(tmp_path, packer):
    content = packer(CONTENT.items())
    assert refusal(tmp_path, content, max_members=2) == " is refused: it has more than 2 members."
    assert unpacked(tmp_path, content, max_members=3) == CONTENT


def test_more_bytes_than_allowed(tmp_path, packer):
    content = packer(CONTENT.items())
    assert refusal(tmp_path, content, max_bytes=1504) == " is refused: its members hold more than 1504 bytes."
    assert unpacked(tmp_path, content, max_bytes=1505) == CONTENT


def test_a_bomb_that_declares_what_it_holds(tmp_path, packer):
    content = packer([("a", bytes(2**24))])
    assert len(content) < 2**16
    assert refusal(tmp_path, content, max_bytes=2**20) == " is refused: its members hold more than 1048576 bytes."


def test_a_gzip_that_goes_on_and_on_behind_its_members(tmp_path):
    content = gzip.compress(tar(tar_member("a")) + bytes(2**24))
    assert refusal(tmp_path, content, max_members=1, max_bytes=2**20) == (
        " is refused: it holds more bytes than is allowed."
    )


def test_a_tar_member_that_declares_the_earth(tmp_path):
    member, _ = tar_member("a", b"")
    member.size = 2**62
    block = member.tobuf(tarfile.GNU_FORMAT)
    assert "hold more than" in refusal(tmp_path, gzip.compress(block + bytes(1024)))
    member.size = 5000
    block = member.tobuf(tarfile.GNU_FORMAT)
    assert "cannot be unpacked: unexpected end of data" in refusal(tmp_path, gzip.compress(block + bytes(1024)))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_header_too_large_to_be_read_at_once(tmp_path, kind):
    member, _ = tar_member("a", b"", kind)
    member.size = 2**26
    content = gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(2**26))
    assert refusal(tmp_path, content) == " cannot be unpacked: a header is too large."


def test_many_tar_headers_for_all_members(tmp_path):
    record = b"%d k=%s\n" % (600_000, b"x" * (600_000 - 10))
    header, _ = tar_member("h", record, tarfile.XGLTYPE)
    once = header.tobuf(tarfile.GNU_FORMAT) + record + bytes(-len(record) % 512)
    plain = tar(tar_member("a"))
    assert unpacked(tmp_path, gzip.compress(once + plain)) == {"a": b"x"}
    (tmp_path / "out" / "a").unlink()
    (tmp_path / "out").rmdir()
    assert "a header is too large" in refusal(tmp_path, gzip.compress(once + once + plain))


def test_tar_headers_without_end(tmp_path):
    header, _ = tar_member("h", b"", tarfile.XHDTYPE)
    refusal(tmp_path, gzip.compress(header.tobuf(tarfile.GNU_FORMAT) * 5000 + bytes(1024)))


def test_a_zip_member_that_holds_more_than_it_declares(tmp_path):
    content = bytearray(zipped(zip_member("a", bytes(10_000))))
    for signature, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", content, content.index(signature) + at, 10)
    assert "cannot be unpacked: Bad CRC-32 for file 'a'" in refusal(tmp_path, bytes(content))


def test_zip_members_that_share_their_bytes(tmp_path):
    content = zipped(zip_member("a", bytes(10_000)), zip_member("b"))
    at = content.rindex(b"PK\1\2")
    other = bytearray(content)
    struct.pack_into("<I", other, at + 42, 0)
    assert "cannot be unpacked: " in refusal(tmp_path, bytes(other))


def test_a_tar_that_goes_on_after_what_is_no_member(tmp_path):
    whole = tar(tar_member("a"), tar_member("b"))
    content = gzip.compress(whole[:1024] + b"?" * 512 + whole[1024:])
    assert refusal(tmp_path, content) == " cannot be unpacked: what follows its last member is no member."


def test_what_is_no_archive(tmp_path):
    for content in (b"", b"<!doctype html>", tar(tar_member("a")), b"BZh9" + bytes(99)):
        assert refusal(tmp_path, content) == " is refused: it is neither a .tar.gz nor a .zip."


def test_an_archive_without_files(tmp_path):
    for content in (tar_gz(tar_member("a", b"", tarfile.DIRTYPE)), tar_gz(), zipped()):
        assert refusal(tmp_path, content) in (" is refused: it holds no files.", " cannot be unpacked: empty file.")


def test_a_missing_archive(tmp_path):
    with pytest.raises(DataError) as caught:
        unpack(tmp_path / "no.zip", tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'no.zip'} cannot be unpacked: No such file or directory. Nothing was unpacked."
    )


def test_what_is_there_is_not_touched(tmp_path, packer):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError) as caught:
        unpacked(tmp_path, packer(CONTENT.items()))
    target = tmp_path / "out"
    assert str(caught.value) == (
        f"{tmp_path / 'a.archive'} cannot be unpacked: {target} is there already. Remove it, or unpack elsewhere."
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, packer, monkeypatch):
    original = Path.open

    def full(path, mode="r", *args):
        if mode == "xb" and path.name == "2.jpg":
            raise OSError(28, "No space left on device")
        return original(path, mode, *args)

    monkeypatch.setattr(Path, "open", full)
    assert refusal(tmp_path, packer(CONTENT.items())) == " cannot be unpacked: No space left on device."


def test_an_interrupt_leaves_nothing(tmp_path, packer, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpacked(tmp_path, packer(CONTENT.items()))
    assert [p.name for p in tmp_path.iterdir()] == ["a.archive"]


@pytest.mark.parametrize("name", ["max_members", "max_bytes"])
def test_limits_are_numbers(tmp_path, name):
    with pytest.raises(ArgumentError) as caught:
        unpack(tmp_path / "a", tmp_path / "b", **{name: 0})
    assert str(caught.value) == f"unpack: {name} must be a whole number >= 1, got 0."


# For all


@pytest.mark.parametrize("kind", PACKERS)
@given(data=st.data())
def test_a_cut_archive_leaves_nothing(tmp_path_factory, kind, data):
    pack, member = PACKERS[kind]
    content = pack(*(member(name, content) for name, content in CONTENT.items()))
    refusal(tmp_path_factory.mktemp("cut"), content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize("kind", PACKERS)
@given(data=st.data())
@settings(max_examples=200)
def test_a_damaged_archive_is_unpacked_whole_or_not_at_all(tmp_path_factory, kind, data):
    pack, member = PACKERS[kind]
    content = bytearray(pack(*(member(name, content) for name, content in CONTENT.items())))
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


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", PACKERS)
@given(names=st.lists(st.text(st.sampled_from("ab./\\:~\n é"), min_size=1, max_size=12), min_size=1, max_size=4))
@settings(max_examples=200)
def test_no_names_write_elsewhere(tmp_path_factory, kind, names):
    pack, member = PACKERS[kind]
    check_nothing_lands_elsewhere(tmp_path_factory.mktemp("names"), pack(*(member(name) for name in names)))


def check_nothing_lands_elsewhere(tmp_path, content):
    deep = tmp_path / "one" / "two"
    deep.mkdir(parents=True)
    (deep / "a").write_bytes(content)
    try:
        unpack(deep / "a", deep / "out", max_bytes=2**20)
        expected = ["a", "out"]
    except DataError:
        expected = ["a"]
    assert sorted(os.listdir(deep)) == expected
    assert os.listdir(deep.parent) == ["two"]
    assert os.listdir(tmp_path) == ["one"]
    assert not any(p.is_symlink() for p in deep.rglob("*"))
