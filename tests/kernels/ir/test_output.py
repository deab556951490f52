"""Files are replaced whole, links are followed, devices and pipes are never replaced."""

import ast
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from frostbit.kernels.ir.output import check_writable, remove_file, replacing, write_file
from tests import ROOT

NULL, FULL, LOOP0 = os.makedev(1, 3), os.makedev(1, 7), os.makedev(7, 0)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node like /dev/null in a folder of its own."""
    path = tmp_path / "null"
    made_node(path, stat.S_IFCHR, NULL)
    return path


def made_node(path: Path, kind: int, device: int) -> None:
    try:
        os.mknod(path, kind | 0o666, device)
    except PermissionError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("making device nodes needs root")


def test_a_regular_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_file(path, b"first")
    before = path.stat().st_ino
    write_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_null_device_stays_one(node: Path) -> None:
    check_writable(node)
    write_file(node, b"gone")
    assert stat.S_ISCHR(node.lstat().st_mode)
    assert node.lstat().st_rdev == NULL
    assert list(node.parent.iterdir()) == [node]


def test_a_full_device_says_so_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "full"
    made_node(path, stat.S_IFCHR, FULL)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"data")
    assert path.lstat().st_rdev == FULL


def test_a_block_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    made_node(path, stat.S_IFBLK, LOOP0)
    for use in (check_writable, lambda each: write_file(each, b"data")):
        with pytest.raises(OSError, match="block device"):
            use(path)
    assert stat.S_ISBLK(path.lstat().st_mode)


def test_a_pipe_is_written_to_if_somebody_reads(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        write_file(path, b"nobody reads")
    data = os.urandom(1 << 20)  # more than a pipe holds
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that the writer finds a reader
    reader.start()
    write_file(path, data)
    reader.join()
    os.close(handle)
    assert read == [data]
    assert stat.S_ISFIFO(path.lstat().st_mode)


def test_a_socket_and_a_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 108 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(OSError, match="socket"):
            write_file(Path("s"), b"data")
    assert stat.S_ISSOCK(Path("s").lstat().st_mode)
    with pytest.raises(IsADirectoryError, match="folder"):
        write_file(tmp_path, b"data")


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file, first, second = elsewhere / "file", tmp_path / "first", tmp_path / "second"
    first.symlink_to("second")
    second.symlink_to(Path("elsewhere") / "file")
    for data in (b"made through a dangling link", b"replaced through it"):
        before = file.stat().st_ino if file.exists() else None
        write_file(first, data)
        assert file.read_bytes() == data
        assert file.stat().st_ino != before
    with replacing(first) as temporary:
        assert temporary.parent == elsewhere  # on the file's own disk
        temporary.write_bytes(b"again")
    assert file.read_bytes() == b"again"
    assert first.is_symlink()
    assert second.is_symlink()
    assert list(elsewhere.iterdir()) == [file]
    remove_file(first)
    assert not file.exists()
    assert first.is_symlink()


def test_a_link_into_a_folder_that_is_missing_and_a_loop_are_refused(tmp_path: Path) -> None:
    lost, one, two = tmp_path / "lost", tmp_path / "one", tmp_path / "two"
    lost.symlink_to(Path("missing") / "file")
    one.symlink_to("two")
    two.symlink_to("one")
    with pytest.raises(FileNotFoundError):
        write_file(lost, b"data")
    with pytest.raises(OSError, match="symbolic links"):
        write_file(one, b"data")
    assert {path.name for path in tmp_path.iterdir() if path.is_symlink()} == {"lost", "one", "two"}


def test_a_link_to_a_device_keeps_both(node: Path) -> None:
    link = node.with_name("link")
    link.symlink_to("null")
    write_file(link, b"gone")
    remove_file(link)
    with pytest.raises(OSError, match="device"), replacing(link):
        pass
    assert link.is_symlink()
    assert node.lstat().st_rdev == NULL


def test_nothing_is_left_of_a_write_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_file(path, b"old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_standard_output_by_its_name(tmp_path: Path) -> None:
    """A pipe there is written to; a file has a name of its own and would be swapped under us."""
    program = (
        "from pathlib import Path; from frostbit.kernels.ir.output import write_file; "
        "write_file(Path('/dev/stdout'), b'through')"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"through"
    file = tmp_path / "out"
    with file.open("wb") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"name that file" in done.stderr
    assert file.read_bytes() == b""


WRITERS = {
    "write_text",
    "rename",
    "mkstemp",
    "NamedTemporaryFile",
    "save_file",
    "tofile",
    "copyfile",
}
IN_MEMORY = {"savefig", "ZipFile"}
NO_FILES = {
    "export/lce/environment.py: built.rename(root)",  # a folder
    "export/lce/worker.py: os.fdopen(os.dup(1), 'wb')",  # a pipe
    "pipeline/parity/given_images.py: zipfile.ZipFile(stream)",  # reads
}


def writes(call: ast.Call) -> bool:
    """Whether ``call`` makes or replaces a file."""
    function = call.func
    name = getattr(function, "attr", getattr(function, "id", ""))
    first = getattr(call.args[0], "id", "") if call.args else ""
    if name in ("open", "fdopen"):
        modes = [*call.args[:2], *(k.value for k in call.keywords if k.arg == "mode")]
        texts = [each.value for each in modes if isinstance(each, ast.Constant)]
        return any(set(text) & set("wax+") and len(text) < 4 for text in texts if str(text) == text)
    if name == "write_bytes":
        return len(call.args) == 1  # a path's own; ours takes the path as well
    if name == "replace":
        of_text, of_dataclass = len(call.args) > 1, bool(call.keywords)
        return not (of_text or of_dataclass) or ast.unparse(function) == "os.replace"
    return name in WRITERS or (name in IN_MEMORY and first != "buffer")


@pytest.mark.parametrize("package", ["frostbit", "kernels", "export", "pipeline"])
def test_every_file_is_written_in_one_place(package: str) -> None:
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        where = path.relative_to(ROOT).as_posix()
        if where == "kernels/ir/output.py":
            continue
        nodes = ast.walk(ast.parse(path.read_text()))
        calls = (each for each in nodes if isinstance(each, ast.Call) and writes(each))
        found |= {f"{where}: {ast.unparse(call)}" for call in calls}
    assert found <= NO_FILES


@pytest.mark.parametrize(
    "text",
    ["open(p, 'w')", "p.open('ab')", "os.fdopen(1, 'wb')", "p.write_bytes(d)", "p.replace(q)",
     "os.replace(p, q)", "figure.savefig(path)", "ZipFile(path, 'w')", "p.open(mode='r+')"],
)  # fmt: skip
def test_the_search_finds_writers(text: str) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert writes(call)
