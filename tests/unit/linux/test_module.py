"""Building a module: in a copy, again only after a change, the compiler's words in the error. make is a stand-in."""

from pathlib import Path

import pytest

from sidecar.qemu.linux.kernels import LinuxKernel
from sidecar.qemu.linux.module import ModuleBuildFailed, NoHeaders, build_module, compiler, module_name

MAKE = """\
#!/bin/bash
echo "$*" >>"$FAKE/made"
for word; do case $word in M=*) folder=${word#M=} ;; esac; done
grep -q broken "$folder/hello.c" && { echo "hello.c:1: error: broken"; exit 2; }
touch "$folder/hello.ko"
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, programs = tmp_path / "source", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    (folder / "Kbuild").write_text("# a module\nobj-m := hello.o\n")
    (folder / "hello.c").write_text("int x;\n")
    (programs / "make").write_text(MAKE)
    (programs / "make").chmod(0o755)
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return folder


@pytest.fixture
def kernel(tmp_path: Path) -> LinuxKernel:
    headers = tmp_path / "headers"
    headers.mkdir()
    return LinuxKernel(version="6.1.0", image=tmp_path / "vmlinuz", headers=headers)


def test_it_is_built_in_a_copy_and_only_after_a_change(source: Path, kernel: LinuxKernel, tmp_path: Path) -> None:
    lines: list[str] = []
    output = tmp_path / "build" / "driver"
    for _ in range(2):
        assert build_module(kernel, source=source, output=output, tell=lines.append) == output / "hello.ko"
    assert lines == ["building hello.ko for Linux 6.1.0"]
    assert sorted(path.name for path in source.iterdir()) == ["Kbuild", "hello.c"]
    (source / "hello.c").write_text("int y;\n")
    build_module(kernel, source=source, output=output, tell=lines.append)
    assert len(lines) == 2
    made = (tmp_path / "made").read_text()
    assert f"-C {kernel.headers} M={output} CONFIG_DEBUG_INFO_BTF_MODULES= modules" in made


def test_the_error_has_the_compilers_words(source: Path, kernel: LinuxKernel, tmp_path: Path) -> None:
    (source / "hello.c").write_text("broken\n")
    with pytest.raises(ModuleBuildFailed) as caught:
        build_module(kernel, source=source, output=tmp_path / "out")
    assert str(caught.value).startswith("the module does not build for Linux 6.1.0: make ended with 2\ncommand: make")
    assert str(caught.value).endswith("\n    hello.c:1: error: broken")


def test_a_kernel_without_headers(source: Path, tmp_path: Path) -> None:
    bare = LinuxKernel(version="6.1.0", image=tmp_path / "vmlinuz")
    with pytest.raises(NoHeaders, match=r"there are no headers for Linux 6\.1\.0: give --headers PATH"):
        build_module(bare, source=source, output=tmp_path / "out")


def test_a_folder_without_a_module(tmp_path: Path) -> None:
    with pytest.raises(ModuleBuildFailed, match=r"no line 'obj-m := NAME\.o' in a Kbuild"):
        module_name(tmp_path)


def test_the_compiler_that_the_headers_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    assert compiler(tmp_path) == []
    text = "CC = $(if $(DEBIAN_KERNEL_USE_CCACHE),$(CCACHE)) $(CROSS_COMPILE)gcc-12\n"
    (tmp_path / ".kernelvariables").write_text(text)
    assert compiler(tmp_path) == ["CC=gcc"]
    (programs / "gcc-12").touch(0o755)
    assert compiler(tmp_path) == []
