// SPDX-License-Identifier: GPL-2.0-or-later
//! The code in front of the program's unwinder against the GNU assembler, which makes the code that is expected.

use object::{Object, ObjectSection};
use std::process::Command;
use ulp_arch::RemoteAddr;

const X86_64: &str = "
    movabs $0x1122334455667788,%rdx
    mov (%rdx),%rcx
next:
    sub $1,%rcx
    jc old
    add $32,%rdx
    cmp (%rdx),%rdi
    jb next
    cmp 8(%rdx),%rdi
    jae next
    mov 16(%rdx),%rcx
    mov 24(%rdx),%rdx
find:
    sub $1,%rdx
    jc none
    mov (%rcx),%r8
    mov 8(%rcx),%r9
    mov 16(%rcx),%rax
    add $24,%rcx
    cmp %r8,%rdi
    jb find
    cmp %r9,%rdi
    jae find
    xor %ecx,%ecx
    mov %rcx,(%rsi)
    mov %rcx,8(%rsi)
    mov %r8,16(%rsi)
    ret
none:
    xor %eax,%eax
    ret
old:
";

#[test]
fn the_hook_is_what_the_assembler_makes() {
    let arch = ulp_arch::by_name("x86_64").expect("it exists");
    let native = ulp_arch::host().is_some_and(|host| host.machine() == arch.machine());
    let tool = if native { "as" } else { "x86_64-linux-gnu-as" };
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.s"), X86_64).expect("written");
    let done = Command::new(tool).args(["-o", "a.o", "a.s"]).current_dir(dir.path()).output();
    let done = done.unwrap_or_else(|e| panic!("these tests need binutils: {tool}: {e}"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let file = std::fs::read(dir.path().join("a.o")).expect("made");
    let object = object::File::parse(&*file).expect("an object");
    let expected = object.section_by_name(".text").expect("text").data().expect("bytes").to_vec();
    let hook = arch.unwind_hook(RemoteAddr(0x1122_3344_5566_7788)).expect("x86_64 has one");
    assert_eq!(hook, expected);
}
