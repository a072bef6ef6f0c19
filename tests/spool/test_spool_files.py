"""Small durable files and the filesystems that are refused."""

import pytest

from fastpixel.errors import SpoolError
from fastpixel.spool import files

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:40 / /mnt/nfs rw shared:2 - nfs4 host:/x rw
24 22 0:41 / /mnt/with\\040space rw - fuse.sshfs host: rw
25 23 8:2 / /mnt/nfs/local rw - xfs /dev/sdb rw
26 22 0:43 / /over rw - tmpfs tmpfs rw
27 22 0:44 / /over rw - cifs //host/share rw
"""


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/srv/data", "ext4"),
        ("/mnt/nfsx", "ext4"),
        ("/mnt/nfs/data", "nfs4"),
        ("/mnt/nfs/local/data", "xfs"),
        ("/mnt/with space/data", "fuse.sshfs"),
        ("/over", "cifs"),
    ],
)
def test_the_longest_mount_point_wins_and_the_later_covers(path, kind):
    assert files.filesystem(files.Path(path), MOUNTS) == kind


@pytest.mark.parametrize("path", ["/mnt/nfs/data", "/mnt/with space/data", "/over/data"])
def test_remote_filesystems_are_refused(path):
    with pytest.raises(SpoolError, match="local filesystem"):
        files.refuse_remote(files.Path(path), MOUNTS)


def test_local_ones_are_not(tmp_path):
    files.refuse_remote(files.Path("/mnt/nfs/local/data"), MOUNTS)
    files.refuse_remote(tmp_path)


def test_write_replaces_and_leaves_nothing_behind(tmp_path):
    files.write(tmp_path / "a", "one")
    files.write(tmp_path / "a", "two")
    assert files.create(tmp_path / "b", "three")
    assert not files.create(tmp_path / "b", "four")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "two", "b": "three"}


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="file is not a directory: check data_dir"):
        files.make_directory(tmp_path / "file")
