// SPDX-License-Identifier: GPL-2.0-or-later
//! Build systems: the same small fix through each, from a pristine tree to a package with exactly the changed function, applied
//! to the program that the same build made. A build system that is not installed is reported as ignored.

use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use ulp_tests::process::Running;
use ulp_tests::tools::{repository, run, ulp_apply, ulp_build};
use ulp_tests::trees::{copy, tool};
use ulp_tests::{CannotRun, ensure_that};

ulp_tests::main_of_tests!(
    plain_make,
    autotools_with_libtool,
    cmake_with_make,
    cmake_with_ninja,
    meson,
    debian_rules,
    debian_stamps_of_an_earlier_build,
    rpm_like_script,
    one_command,
    ccache_in_front,
    ccache_as_compiler,
    compiler_by_path,
    assembler_and_linker_by_path,
    empty_environment,
);

const PRICE: &str = "#include \"ask.h\"\n#include \"price.h\"\nint price(int n) {\n    return n * 3 + 11;\n}\n";
const MAIN: &str = "#include \"ask.h\"\n#include \"price.h\"\nvoid answer(const char *question) { printf(\"%d\\n\", price(atoi(question))); }\n";

struct System<'a> {
    /// Programs that must be there.
    needs: &'a [&'a str],
    files: &'a [(&'a str, &'a str)],
    /// Beside the production tree: what makes the program, and where it is then.
    build: &'a str,
    app: &'a str,
    /// The file that is patched, where it is not the program.
    target: Option<&'a str>,
    /// What `ulp-build` gets as `--build`; `None`: it has to find out.
    command: Option<&'a str>,
    /// Done in the original tree before it is given to `ulp-build`.
    before: &'a str,
}

const PLAIN: System<'_> =
    System { needs: &["make"], files: &[], build: "make", app: "app", target: None, command: None, before: "true" };

fn there(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

fn shell(dir: &Path, script: &str) -> Result<()> {
    tool(Command::new("sh").arg("-ec").arg(script).current_dir(dir))
}

fn patch_through(system: &System<'_>) -> Result<()> {
    for program in system.needs {
        if !there(program) {
            return Err(CannotRun(format!("{program} is not installed")).into());
        }
    }
    let dir = tempfile::Builder::new().prefix("ulp-system.").tempdir()?;
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    std::fs::create_dir_all(at("orig/src"))?;
    copy(&repository().join("tests/support"), &at("orig/src"))?;
    let sources = [("src/main.c", MAIN), ("src/price.c", PRICE), ("src/price.h", "int price(int n);\n")];
    for (name, text) in sources.iter().chain(system.files) {
        let path = at("orig").join(name);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(&path, text)?;
        if text.starts_with("#!") {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        }
    }
    copy(&at("orig"), &at("fix"))?;
    std::fs::write(at("fix/src/price.c"), PRICE.replace("n * 3", "n * 4"))?;
    // Production is built where the original stands, as a package's build would, and moved away.
    copy(&at("orig"), &at("kept"))?;
    shell(&at("orig"), system.build)?;
    std::fs::rename(at("orig"), at("production"))?;
    std::fs::rename(at("kept"), at("orig"))?;
    shell(&at("orig"), system.before)?;
    shell(&at("fix"), system.before)?;
    let target = at("production").join(system.target.unwrap_or(system.app));
    let mut command = ulp_build()?;
    command.arg("--orig").arg(at("orig")).arg("--fix").arg(at("fix")).arg("--target").arg(&target);
    if let Some(build) = system.command {
        command.args(["--build", build]);
    }
    let built = run(command.arg("--json").arg("-o").arg(at("fix.ulp")))?;
    built.expect_code(0)?;
    let changed = &built.json()?["changed"];
    ensure_that!(*changed == serde_json::json!(["price"]), "changed: {changed}");
    let mut process = Running::start(&at("production").join(system.app), &[])?;
    let pid = process.pid().to_string();
    let ask = |process: &mut Running, want: &str| -> Result<()> {
        let answer = process.ask("5")?;
        ensure_that!(answer == want, "answered {answer}, not {want}");
        Ok(())
    };
    ask(&mut process, "26")?;
    run(ulp_apply()?.arg("apply").arg(at("fix.ulp")).args(["--pid", &pid]))?.expect_code(0)?;
    ask(&mut process, "31")?;
    run(ulp_apply()?.arg("revert").arg(at("fix.ulp")).args(["--pid", &pid]))?.expect_code(0)?;
    ask(&mut process, "26")?;
    process.end()
}

const MAKEFILE: &str = "CC = gcc\nCFLAGS = -O2 -g\napp: src/main.o src/ask.o src/price.o\n\t$(CC) -o $@ $^ -pthread\n%.o: %.c\n\t$(CC) $(CFLAGS) -c -o $@ $<\nclean:\n\trm -f app src/*.o\n";

fn plain_make() -> Result<()> {
    patch_through(&System { files: &[("Makefile", MAKEFILE)], ..PLAIN })
}

/// A shared library out of a convenience library, and a program in a wrapper script's care.
fn autotools_with_libtool() -> Result<()> {
    let files = [
        (
            "configure.ac",
            "AC_INIT([app], [1])\nAM_INIT_AUTOMAKE([foreign subdir-objects])\nAC_PROG_CC\nAM_PROG_AR\nLT_INIT([disable-static])\nAC_CONFIG_HEADERS([config.h])\nAC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n",
        ),
        (
            "Makefile.am",
            "noinst_LTLIBRARIES = libinner.la\nlibinner_la_SOURCES = src/price.c src/price.h\nlib_LTLIBRARIES = libprice.la\nlibprice_la_SOURCES = src/nothing.c\nlibprice_la_LIBADD = libinner.la\nbin_PROGRAMS = app\napp_SOURCES = src/main.c src/ask.c src/ask.h\napp_LDADD = libprice.la\napp_LDFLAGS = -pthread\n",
        ),
        ("src/nothing.c", "int nothing(void);\nint nothing(void) { return 0; }\n"),
    ];
    patch_through(&System {
        needs: &["autoreconf", "automake", "libtoolize", "make"],
        files: &files,
        build: "autoreconf -fi && ./configure CFLAGS='-O2 -g' && make && gcc -o direct src/main.o src/ask.o .libs/libprice.so -Wl,-rpath,'$ORIGIN/.libs' -pthread",
        app: "direct",
        target: Some(".libs/libprice.so.0.0.0"),
        command: Some("autoreconf -fi && ./configure CFLAGS='-O2 -g' && make"),
        before: "true",
    })
}

const CMAKE: &str = "cmake_minimum_required(VERSION 3.10)\nproject(app C)\nset(CMAKE_C_FLAGS \"-O2 -g\")\nfind_package(Threads REQUIRED)\nadd_executable(app src/main.c src/ask.c src/price.c)\ntarget_link_libraries(app Threads::Threads)\n";

fn cmake_with_make() -> Result<()> {
    patch_through(&System {
        needs: &["cmake", "make"],
        files: &[("CMakeLists.txt", CMAKE)],
        build: "cmake -B build . && cmake --build build",
        app: "build/app",
        ..PLAIN
    })
}

fn cmake_with_ninja() -> Result<()> {
    patch_through(&System {
        needs: &["cmake", "ninja"],
        files: &[("CMakeLists.txt", CMAKE)],
        build: "cmake -G Ninja -B build . && cmake --build build",
        app: "build/app",
        command: Some("cmake -G Ninja -B build . && cmake --build build"),
        ..PLAIN
    })
}

fn meson() -> Result<()> {
    patch_through(&System {
        needs: &["meson", "ninja"],
        files: &[(
            "meson.build",
            "project('app', 'c', default_options: ['buildtype=debugoptimized'])\nexecutable('app', 'src/main.c', 'src/ask.c', 'src/price.c', dependencies: dependency('threads'))\n",
        )],
        build: "meson setup build && ninja -C build",
        app: "build/app",
        ..PLAIN
    })
}

const CONTROL: &str = "Source: app\nMaintainer: The Packagers <packagers@example.org>\nSection: misc\nPriority: optional\nStandards-Version: 4.6.2\n\nPackage: app\nArchitecture: any\nDescription: a program\n A program under test.\n";
const RULES: &str =
    "#!/usr/bin/make -f\n%:\n\tdh $@\noverride_dh_auto_install:\n\tinstall -D app debian/app/usr/bin/app\n";
const CHANGELOG: &str = "app (1.0) unstable; urgency=low\n\n  * A program under test.\n\n -- The Packagers <packagers@example.org>  Thu, 01 Jan 2026 00:00:00 +0000\n";
const DEBIAN: [(&str, &str); 6] = [
    ("Makefile", MAKEFILE),
    ("debian/control", CONTROL),
    ("debian/rules", RULES),
    ("debian/changelog", CHANGELOG),
    ("debian/source/format", "3.0 (native)\n"),
    ("debian/compat", "13\n"),
];

fn debian_rules() -> Result<()> {
    patch_through(&System {
        needs: &["dpkg-buildpackage", "dh"],
        files: &DEBIAN,
        build: "dpkg-buildpackage -b -uc -us",
        app: "app",
        command: Some("dpkg-buildpackage -b -uc -us"),
        ..PLAIN
    })
}

/// A tree in which stamps say that all is done: nothing would compile, and a silent "no change" would lose the fix.
fn debian_stamps_of_an_earlier_build() -> Result<()> {
    patch_through(&System {
        needs: &["dpkg-buildpackage", "dh"],
        files: &DEBIAN,
        build: "dpkg-buildpackage -b -uc -us",
        app: "app",
        command: Some("dpkg-buildpackage -b -uc -us"),
        before: "debian/rules build",
        ..PLAIN
    })
}

/// What `rpmbuild -bc` runs: a script with the flags of the distribution, in a folder below.
fn rpm_like_script() -> Result<()> {
    let script = "#!/bin/sh\nset -e\ncd \"$(dirname \"$0\")\"\nCFLAGS='-O2 -g -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fexceptions'\nexport CFLAGS\nmkdir -p BUILD/app-1 && cp -a src Makefile BUILD/app-1/\ncd BUILD/app-1\nmake CFLAGS=\"$CFLAGS\"\n";
    patch_through(&System {
        files: &[("Makefile", MAKEFILE), ("bc.sh", script)],
        build: "./bc.sh",
        app: "BUILD/app-1/app",
        command: Some("./bc.sh"),
        ..PLAIN
    })
}

fn one_command() -> Result<()> {
    let build = "gcc -O2 -g -o app src/main.c src/ask.c src/price.c -pthread";
    patch_through(&System { build, command: Some(build), ..PLAIN })
}

/// ccache stands in front of the compilers, with everything in its store already.
fn ccache_in_front() -> Result<()> {
    let build = "export CCACHE_DIR=$PWD/../cache PATH=/usr/lib/ccache:$PATH; make";
    patch_through(&System {
        needs: &["ccache"],
        files: &[("Makefile", MAKEFILE)],
        build,
        command: Some(build),
        ..PLAIN
    })
}

fn ccache_as_compiler() -> Result<()> {
    let build = "export CCACHE_DIR=$PWD/../cache; make CC='ccache gcc'";
    patch_through(&System {
        needs: &["ccache"],
        files: &[("Makefile", MAKEFILE)],
        build,
        command: Some(build),
        ..PLAIN
    })
}

fn compiler_by_path() -> Result<()> {
    let build = "make CC=/usr/bin/gcc";
    patch_through(&System { files: &[("Makefile", MAKEFILE)], build, command: Some(build), ..PLAIN })
}

/// Nobody looks for these tools anywhere: what they do is not seen, and nothing may be made of it.
fn assembler_and_linker_by_path() -> Result<()> {
    let makefile = "app: src/main.o src/ask.o src/price.o\n\tgcc -o $@ $^ -pthread\nsrc/price.o: src/price.c\n\tgcc -O2 -g -S -o src/price.s $<\n\t/usr/bin/as -o $@ src/price.s\n%.o: %.c\n\tgcc -O2 -g -c -o $@ $<\nclean:\n\trm -f app src/*.o src/*.s\n";
    match patch_through(&System { files: &[("Makefile", makefile)], ..PLAIN }) {
        Ok(()) => Ok(()),
        Err(error) => {
            let text = format!("{error:#}");
            let refused = ["E-NOT-LINKED", "E-NOTHING-BUILT", "E-LINKER"].iter().any(|code| text.contains(code));
            ensure_that!(refused, "neither patched nor refused with a fitting code: {text}");
            Ok(())
        }
    }
}

/// The shims are found through the environment. Without it nothing is seen, which is an error that says so.
fn empty_environment() -> Result<()> {
    let build = "env -i PATH=/usr/bin:/bin make";
    match patch_through(&System { files: &[("Makefile", MAKEFILE)], build, command: Some(build), ..PLAIN }) {
        Ok(()) => Ok(()),
        Err(error) => {
            let text = format!("{error:#}");
            ensure_that!(text.contains("nothing was compiled by"), "{text}");
            Ok(())
        }
    }
}
