// SPDX-License-Identifier: GPL-2.0-or-later
//! The situations that the comparison of two objects must tell apart, compiled by the compiler at hand with the flags of a
//! recompile. Every refusal has a neighbour that is allowed.

use std::path::{Path, PathBuf};
use std::process::Command;
use ulp_build::diff::{Compiled, DiffReport, Input, compare, compare_units, diff_objects};
use ulp_build::model::{Language, Unit};

const FLAGS: [&str; 4] = ["-O2", "-ffunction-sections", "-fdata-sections", "-g"];

fn compile(dir: &Path, side: &str, text: &str, cxx: bool, flags: &[&str]) -> PathBuf {
    // The same source name on both sides, as in two trees.
    let here = dir.join(side);
    std::fs::create_dir_all(&here).expect("a directory can be made");
    let source = if cxx { "unit.cc" } else { "unit.c" };
    std::fs::write(here.join(source), text).expect("the source can be written");
    let compiler = if cxx { "g++" } else { "gcc" };
    let done = Command::new(compiler)
        .current_dir(&here)
        .args(FLAGS)
        .args(flags)
        .args(["-w", "-c", source, "-o", "unit.o"])
        .output();
    let done = done.expect("the compiler runs");
    assert!(done.status.success(), "{}\n{text}", String::from_utf8_lossy(&done.stderr));
    here.join("unit.o")
}

/// The report in one line: `changed f; new g; gone h`, `same`, or the refusals' codes.
fn told(report: &DiffReport) -> String {
    if !report.refusals.is_empty() {
        let mut codes: Vec<_> = report.refusals.iter().map(|r| r.code.as_str()).collect();
        codes.dedup();
        return codes.join(" ");
    }
    // Which number the compiler gives is its own affair.
    let plain = |names: &Vec<String>| {
        let stem = |name: &String| match name.rsplit_once('.') {
            Some((stem, number)) if number.bytes().all(|b| b.is_ascii_digit()) => format!("{stem}.N"),
            _ => name.clone(),
        };
        names.iter().map(stem).collect::<Vec<_>>().join(" ")
    };
    let lists = [("changed", &report.changed), ("new", &report.new), ("gone", &report.gone)];
    let parts: Vec<_> =
        lists.iter().filter(|(_, l)| !l.is_empty()).map(|(what, l)| format!("{what} {}", plain(l))).collect();
    if parts.is_empty() { "same".into() } else { parts.join("; ") }
}

struct Case {
    name: &'static str,
    cxx: bool,
    flags: &'static [&'static str],
    before: &'static str,
    after: &'static str,
    want: &'static str,
}

const fn c(name: &'static str, before: &'static str, after: &'static str, want: &'static str) -> Case {
    Case { name, cxx: false, flags: &[], before, after, want }
}

const fn with(case: Case, flags: &'static [&'static str]) -> Case {
    Case { flags, ..case }
}

const fn cxx(name: &'static str, before: &'static str, after: &'static str, want: &'static str) -> Case {
    Case { name, cxx: true, flags: &[], before, after, want }
}

const SWITCH_A: &str = "int a(void),b(void),d(void),e(void),g(void),h(void); int f(int x){switch(x){case 0:return a();case 1:return b();case 2:return d();case 3:return e();case 4:return g();case 5:return h();} return 0;}";
const SWITCH_B: &str = "int a(void),b(void),d(void),e(void),g(void),h(void); int f(int x){switch(x){case 0:return a();case 1:return b();case 2:return d();case 3:return e();case 5:return g();case 4:return h();} return 0;}";

const CASES: &[Case] = &[
    c(
        "D1 body of a global function",
        "int f(int x){return x+1;} int g(void){return 7;}",
        "int f(int x){return x+2;} int g(void){return 7;}",
        "changed f",
    ),
    c(
        "D2 static function",
        "static __attribute__((noinline)) int s(int x){return x*3+1;} int f(int x){return s(x)+1;}",
        "static __attribute__((noinline)) int s(int x){return x*3+2;} int f(int x){return s(x)+1;}",
        "changed s",
    ),
    c(
        "D3 string literal only",
        "int puts(const char*); int f(void){return puts(\"old\");} int g(void){return puts(\"both\");}",
        "int puts(const char*); int f(void){return puts(\"new\");} int g(void){return puts(\"both\");}",
        "changed f",
    ),
    c(
        "D3 string of another length, before an unchanged one",
        "int puts(const char*); int f(void){return puts(\"old\");} int g(void){return puts(\"both\");}",
        "int puts(const char*); int f(void){return puts(\"newer and longer\");} int g(void){return puts(\"both\");}",
        "changed f",
    ),
    c("D4 double constant", "double f(double x){return x*3.25;}", "double f(double x){return x*3.5;}", "changed f"),
    c(
        "D4 float constant",
        "float f(float x){return x*3.25f;} float g(float x){return x*7.5f;}",
        "float f(float x){return x*3.5f;} float g(float x){return x*7.5f;}",
        "changed f",
    ),
    c(
        "D5 SIMD constant",
        "typedef int v __attribute__((vector_size(16))); v f(v x){return x+(v){1,2,3,4};}",
        "typedef int v __attribute__((vector_size(16))); v f(v x){return x+(v){1,2,3,5};}",
        "changed f",
    ),
    with(
        c(
            "D5 wide SIMD constant",
            "typedef int v __attribute__((vector_size(32))); void f(v*x){*x+=(v){1,2,3,4,5,6,7,8};}",
            "typedef int v __attribute__((vector_size(32))); void f(v*x){*x+=(v){1,2,3,4,5,6,7,9};}",
            "changed f",
        ),
        &["-mavx2"],
    ),
    c("D6 jump table only", SWITCH_A, SWITCH_B, "changed f"),
    with(c("D6 jump table of absolute addresses", SWITCH_A, SWITCH_B, "changed f"), &["-fno-pic"]),
    c(
        "D6 unchanged jump table",
        "int z=1; int a(void),b(void),d(void),e(void),g(void),h(void); int f(int x){switch(x){case 0:return a();case 1:return b();case 2:return d();case 3:return e();case 4:return g();case 5:return h();} return 0;} int q(void){return 1;}",
        "int z=1; int a(void),b(void),d(void),e(void),g(void),h(void); int f(int x){switch(x){case 0:return a();case 1:return b();case 2:return d();case 3:return e();case 4:return g();case 5:return h();} return 0;} int q(void){return 2;}",
        "changed q",
    ),
    c(
        "D7 switch lookup table",
        "const char* f(int x){switch(x){case 0:return \"a\";case 1:return \"b\";case 2:return \"c\";case 3:return \"d\";case 4:return \"e\";} return \"z\";}",
        "const char* f(int x){switch(x){case 0:return \"a\";case 1:return \"b\";case 2:return \"c\";case 3:return \"D\";case 4:return \"e\";} return \"z\";}",
        "changed f",
    ),
    c(
        "D7 switch lookup of numbers",
        "int f(int x){switch(x){case 0:return 11;case 1:return 5;case 2:return 73;case 3:return 8;case 4:return 19;} return 1;}",
        "int f(int x){switch(x){case 0:return 11;case 1:return 5;case 2:return 74;case 3:return 8;case 4:return 19;} return 1;}",
        "changed f; new CSWTCH.N; gone CSWTCH.N",
    ),
    c(
        "D8 static const array",
        "static const int t[]={1,5,9,20}; int f(int i){return t[i];} int g(void){return 1;}",
        "static const int t[]={1,5,8,20}; int f(int i){return t[i];} int g(void){return 1;}",
        "changed f t",
    ),
    c(
        "D9 static const table of function pointers",
        "int a(void),b(void); static int(*const t[])(void)={a,b,a}; int f(int i){return t[i]();}",
        "int a(void),b(void); static int(*const t[])(void)={a,b,b}; int f(int i){return t[i]();}",
        "changed f t",
    ),
    c(
        "D10 static const table of strings",
        "static const char*const t[]={\"x\",\"y\"}; const char* f(int i){return t[i];}",
        "static const char*const t[]={\"x\",\"z\"}; const char* f(int i){return t[i];}",
        "changed f t",
    ),
    c(
        "a table through a table",
        "static const int u[]={1,2,3,4}; static const int*const t[]={u,u+1}; int f(int i){return t[i][0];}",
        "static const int u[]={1,2,3,5}; static const int*const t[]={u,u+1}; int f(int i){return t[i][0];}",
        "changed f t u",
    ),
    c(
        "D11 changed initial value",
        "int v=1; int f(void){return v++;}",
        "int v=2; int f(void){return v++;}",
        "E-DATA-INIT",
    ),
    c(
        "D11 a variable that stays",
        "int v=1; int f(void){return v++;}",
        "int v=1; int f(void){return v+=2;}",
        "changed f",
    ),
    c("D11 from zero", "int v; int f(void){return v++;}", "int v=2; int f(void){return v++;}", "E-DATA-INIT"),
    c(
        "D12 value and code",
        "static int v=1; int f(void){return v++;}",
        "static int v=2; int f(void){return v+=3;}",
        "E-DATA-INIT",
    ),
    c(
        "D13 array grows",
        "int v[4]; int f(int i){return v[i]++;}",
        "int v[5]; int f(int i){return v[i]++;}",
        "E-DATA-SIZE E-LAYOUT",
    ),
    c(
        "D14 struct layout of live data",
        "struct s{int a,b;}; struct s*f(struct s*p){p->a=p->b;return p;}",
        "struct s{int a,n,b;}; struct s*f(struct s*p){p->a=p->b;return p;}",
        "E-LAYOUT",
    ),
    c(
        "D14 a new struct is no danger",
        "struct s{int a,b;}; struct s*f(struct s*p){p->a=p->b;return p;}",
        "struct s{int a,b;}; struct n{int x,y;}; struct s*f(struct s*p){struct n q={p->a,p->b};p->a=q.y;p->b+=q.x;return p;}",
        "changed f",
    ),
    c(
        "D15 initial value in a named section",
        "int v __attribute__((section(\"mine\")))=1; int f(void){return v++;}",
        "int v __attribute__((section(\"mine\")))=2; int f(void){return v++;}",
        "E-DATA-INIT",
    ),
    c(
        "D16 target of a writable pointer table",
        "int a(void),b(void); int(*t[])(void)={a,a}; int f(int i){return t[i]();}",
        "int a(void),b(void); int(*t[])(void)={a,b}; int f(int i){return t[i]();}",
        "E-DATA-INIT",
    ),
    c(
        "D16 string behind a writable pointer",
        "char*t=\"a\"; char*f(void){return t;}",
        "char*t=\"b\"; char*f(void){return t;}",
        "E-DATA-INIT",
    ),
    c(
        "D16 a writable table of changed functions",
        "static int a(void){return 1;} int(*t[])(void)={a}; int f(int i){return t[i]();}",
        "static int a(void){return 2;} int(*t[])(void)={a}; int f(int i){return t[i]();}",
        "changed a",
    ),
    c(
        "D17 new zero static local",
        "int f(int x){return x;}",
        "int f(int x){static int n; return x+n++;}",
        "changed f; new n.N",
    ),
    c(
        "D18 new initialised global",
        "int f(int x){return x;}",
        "int lim=9; int f(int x){return x+lim;}",
        "changed f; new lim",
    ),
    c(
        "D18 new initialised static",
        "int f(int x){return x;}",
        "static int lim=9; int f(int x){return x+lim--;}",
        "changed f; new lim",
    ),
    c(
        "D19 numbers of static locals shift",
        "int f(void){static int count;return ++count;}",
        "int g(void){static int count=5;return count+=2;} int f(void){static int count;return ++count;}",
        "new count.N g",
    ),
    c(
        "D19 a namesake in another function is another variable",
        "int f(void){static int count;return ++count;} int g(void){return 1;}",
        "int f(void){return 2;} int g(void){static int count;return ++count;}",
        "changed f g; new count.N; gone count.N",
    ),
    c(
        "D20 static local in inlined copies",
        "static inline int n(void){static int k;return ++k;} int f(void){return n();} int g(void){return n()+1;}",
        "static inline int n(void){static int k;return ++k;} int f(void){return n();} int g(void){return n()+2;}",
        "changed g",
    ),
    c(
        "D21 same-named statics of one function",
        "int f(int x){if(x){static int n;return ++n;}else{static int n;return n+=2;}}",
        "int f(int x){if(!x){static int n;return n+=2;}else{static int n;return ++n;}}",
        "E-AMBIGUOUS",
    ),
    c(
        "D21 told apart by their type",
        "int f(int x){if(x){static int n;return ++n;}else{static long long n;return n+=2;}}",
        "int f(int x){if(!x){static long long n;return n+=3;}else{static int n;return ++n;}}",
        "changed f",
    ),
    c(
        "D21 untouched",
        "int f(int x){if(x){static int n;return ++n;}else{static int n;return n+=2;}} int g(void){return 1;}",
        "int f(int x){if(x){static int n;return ++n;}else{static int n;return n+=2;}} int g(void){return 2;}",
        "changed g",
    ),
    c(
        "D22 static local removed",
        "int f(int x){static int n;return x+n++;}",
        "int f(int x){return x;}",
        "changed f; gone n.N",
    ),
    c(
        "D23 static local in a cold part",
        "void die(int)__attribute__((cold,noreturn)); int w(int); int f(int x){static int n; n+=w(n); if(x<0)die(x); return x;}",
        "void die(int)__attribute__((cold,noreturn)); int w(int); int f(int x){static int n; if(x<0){n+=w(n);die(n);} return x;}",
        "changed f",
    ),
    c(
        "D24 only the cold part changes",
        "void die(int)__attribute__((cold,noreturn)); int f(int*p){if(p[0]<0){die(p[1]+1);} return p[2];}",
        "void die(int)__attribute__((cold,noreturn)); int f(int*p){if(p[0]<0){die(p[1]+2);} return p[2];}",
        "changed f",
    ),
    c(
        "D25 a cold part appears",
        "void die(int)__attribute__((cold,noreturn)); int f(int*p){return p[2];}",
        "void die(int)__attribute__((cold,noreturn)); int f(int*p){if(p[0]<0){die(p[1]+2);} return p[2];}",
        "changed f",
    ),
    c(
        "D25 a clone appears",
        "static __attribute__((noinline)) int s(int x,int y){return x*3+y;} int f(int x){return s(x,x);}",
        "static __attribute__((noinline)) int s(int x,int y){return x*3+7;} int f(int x){return s(x,x);}",
        "changed f; new s.constprop.N; gone s",
    ),
    c(
        "D29 inline function of a header",
        "static inline int h(int x){return x+1;} int f(int x){return h(x);} int g(int x){return h(x)*2;} int q(void){return 0;}",
        "static inline int h(int x){return x+3;} int f(int x){return h(x);} int g(int x){return h(x)*2;} int q(void){return 0;}",
        "changed f g",
    ),
    c(
        "D43 new constructor",
        "int v; int f(void){return v;}",
        "int v; int f(void){return v;} __attribute__((constructor)) static void start(void){v=1;}",
        "E-CTOR",
    ),
    c(
        "D43 constructor removed",
        "int v; __attribute__((constructor)) static void start(void){v=1;} int f(void){return v;}",
        "int v; int f(void){return v;}",
        "E-CTOR",
    ),
    c(
        "D43 constructor stays",
        "int v; __attribute__((constructor)) static void start(void){v=1;} int f(void){return v;}",
        "int v; __attribute__((constructor)) static void start(void){v=1;} int f(void){return v+1;}",
        "changed f",
    ),
    c(
        "D45 resolver",
        "static int a(void){return 1;} static int b(void){return 2;} void*r(void){return a;} int f(void)__attribute__((ifunc(\"r\")));",
        "static int a(void){return 1;} static int b(void){return 2;} void*r(void){return b;} int f(void)__attribute__((ifunc(\"r\")));",
        "E-IFUNC",
    ),
    c(
        "D49 new thread-local variable",
        "int f(int x){return x;}",
        "static __thread int t; int f(int x){return x+t++;}",
        "E-TLS-NEW",
    ),
    c(
        "D49 existing thread-local variable",
        "static __thread int t; int f(int x){return x+t++;}",
        "static __thread int t; int f(int x){return x+(t+=2);}",
        "changed f",
    ),
    c(
        "D49 initial value of a thread-local variable",
        "static __thread int t=1; int f(int x){return x+t++;}",
        "static __thread int t=2; int f(int x){return x+t++;}",
        "E-DATA-INIT",
    ),
    c(
        "D59 label table of a changed function",
        "int f(const char*p){static void*const t[]={&&a,&&b};int x=0;next:goto*t[*p++];a:x++;goto next;b:return x;}",
        "int f(const char*p){static void*const t[]={&&a,&&b};int x=0;next:goto*t[*p++];a:x+=5;goto next;b:return x+1;}",
        "changed f t.N",
    ),
    c(
        "D60 two functions in one named section",
        "__attribute__((section(\".text.x\"))) int f(int x){return x+1;} __attribute__((section(\".text.x\"))) int g(int x){return x*5;}",
        "__attribute__((section(\".text.x\"))) int f(int x){return x+1;} __attribute__((section(\".text.x\"))) int g(int x){return x*7;}",
        "changed g",
    ),
    c(
        "D70 static becomes global",
        "static __attribute__((noinline)) int s(int x){return x*x;} int f(int x){return s(x);}",
        "__attribute__((noinline)) int s(int x){return x*x;} int f(int x){return s(x)+1;}",
        "changed f",
    ),
    c("D71 removed function", "int f(int x){return x;} int g(int x){return x+1;}", "int f(int x){return x;}", "gone g"),
    c("D72 blank lines", "int f(int x){return x;}", "\n\n\nint f(int x)\n{\nreturn x;}", "same"),
    c(
        "D104 constant that a live pointer shows",
        "static const int t[]={1,2,3,4}; const int*p=t; int f(int i){return t[i]+*p;}",
        "static const int t[]={1,2,3,5}; const int*p=t; int f(int i){return t[i]+*p;}",
        "E-DATA-SHARED",
    ),
    c(
        "D104 global constant",
        "const int t[]={1,2,3,4}; int f(int i){return t[i];}",
        "const int t[]={1,2,3,5}; int f(int i){return t[i];}",
        "E-DATA-SHARED",
    ),
    c(
        "D107 only a type changes",
        "struct s{int a,b;}; struct s*keep; int f(void){return keep->a;}",
        "struct s{int a,b,n;}; struct s*keep; int f(void){return keep->a;}",
        "E-LAYOUT",
    ),
    c(
        "D107 a member is renamed",
        "struct s{int a,b;}; struct s*keep; int f(void){return keep->a;}",
        "struct s{int a,c;}; struct s*keep; int f(void){return keep->a;}",
        "same",
    ),
    c(
        "members of one type change places",
        "struct s{int a,b;}; struct s*keep; int f(void){return keep->a;}",
        "struct s{int b,a;}; struct s*keep; int f(void){return keep->a;}",
        "E-LAYOUT",
    ),
    c(
        "bit field widens",
        "struct s{unsigned a:3,b:5;}; struct s*keep; int f(void){return keep->a;}",
        "struct s{unsigned a:4,b:4;}; struct s*keep; int f(void){return keep->a;}",
        "E-LAYOUT",
    ),
    c(
        "array in a struct grows within its padding",
        "struct s{char a[5];int b;}; struct s*keep; int f(void){return keep->b;}",
        "struct s{char a[6];int b;}; struct s*keep; int f(void){return keep->b;}",
        "E-LAYOUT",
    ),
    c(
        "nameless struct behind a typedef",
        "typedef struct{int a;short b;}t; t*keep; int f(void){return keep->a;}",
        "typedef struct{int a;short b,d;}t; t*keep; int f(void){return keep->a;}",
        "E-LAYOUT",
    ),
    c(
        "enumerator appended",
        "enum e{A,B}; enum e v; int f(void){return v==B;}",
        "enum e{A,B,C}; enum e v; int f(void){return v==B;}",
        "same",
    ),
    c(
        "enumerator moved",
        "enum e{A,B}; enum e v; int f(void){return v==B;}",
        "enum e{A,N,B}; enum e v; int f(void){return v==B;}",
        "E-LAYOUT",
    ),
    c(
        "variable of another type and the same size",
        "int v; int f(void){return v!=0;}",
        "float v; int f(void){return v!=0;}",
        "E-LAYOUT",
    ),
    c(
        "linker set gains a member",
        "int a __attribute__((section(\"set\"),used))=1; int f(void){return 1;}",
        "int a __attribute__((section(\"set\"),used))=1; int b __attribute__((section(\"set\"),used))=1; int f(void){return 1;}",
        "E-UNSUPPORTED",
    ),
    c(
        "alignment of a live variable",
        "char v[64]; char*f(void){return v;}",
        "char v[64] __attribute__((aligned(64))); char*f(void){return v;}",
        "E-LAYOUT",
    ),
    c(
        "constant becomes a variable others may know",
        "extern const int v; const int v=1; int f(void){return v;}",
        "int v=1; int f(void){return v;}",
        "E-UNSUPPORTED",
    ),
    c(
        "image of a local array",
        "void u(int*); void f(void){int a[40]={1,2,3,4,5,6,7,8,9,10,11,12,13};u(a);}",
        "void u(int*); void f(void){int a[40]={1,2,3,4,5,6,7,8,9,10,11,12,14};u(a);}",
        "changed f",
    ),
    c("which of two variables", "int a,b; int f(void){return a;}", "int a,b; int f(void){return b;}", "changed f"),
    c("which element", "int a[4]; int f(void){return a[1];}", "int a[4]; int f(void){return a[2];}", "changed f"),
    c(
        "which import",
        "int a(int),b(int); int f(int x){return a(x);}",
        "int a(int),b(int); int f(int x){return b(x);}",
        "changed f",
    ),
    c(
        "which clone",
        "static __attribute__((noinline)) int s(int x,int k){int r=0;for(int i=0;i<x;i++)r+=k*i^x;return r;} int f(int x){return s(x,3);} int g(int x){return s(x,3)+s(x+1,3);}",
        "static __attribute__((noinline)) int s(int x,int k){int r=0;for(int i=0;i<x;i++)r+=k*i^x;return r;} int f(int x){return s(x,5);} int g(int x){return s(x,5)+s(x+1,5);}",
        "changed s.constprop.N",
    ),
    cxx(
        "D33 inline function of a header",
        "inline int h(int x){return x*x+1;} int (*p)(int)=h; int g(){return 1;}",
        "inline int h(int x){return x*x+2;} int (*p)(int)=h; int g(){return 1;}",
        "changed _Z1hi",
    ),
    cxx(
        "D38 new virtual function",
        "struct s{virtual int a();int v;}; int s::a(){return v;}",
        "struct s{virtual int a();virtual int b();int v;}; int s::a(){return v;} int s::b(){return 2;}",
        "E-LAYOUT E-VTABLE",
    ),
    cxx(
        "D42 initialiser of a global object",
        "int w(); int v=w(); int f(){return v;}",
        "int w(); int v=w()+1; int f(){return v;}",
        "E-INIT",
    ),
    cxx(
        "D42 another function beside it",
        "int w(); int v=w(); int f(){return v;}",
        "int w(); int v=w(); int f(){return v+1;}",
        "changed _Z1fv",
    ),
    cxx("exceptions may pass", "int w(); int f(){return w()+1;}", "int w(); int f(){return w()+2;}", "changed _Z1fv"),
    cxx(
        "exceptions are caught",
        "void w(); int f(){try{w();}catch(int e){return e;}return 0;}",
        "void w(); int f(){try{w();}catch(int e){return e+1;}return 0;}",
        "changed _Z1fv",
    ),
    cxx("a leaf function", "int f(int x){return x+1;}", "int f(int x){return x+2;}", "changed _Z1fi"),
];

fn compiled(cxx: bool) -> Compiled {
    Compiled { language: if cxx { Language::Cxx } else { Language::C }, exceptions: cxx }
}

fn report(before: &Path, after: &Path, cxx: bool) -> DiffReport {
    let (old, new) = (std::fs::read(before).expect("an object"), std::fs::read(after).expect("an object"));
    let inputs = (Input { path: before, bytes: &old }, Input { path: after, bytes: &new });
    DiffReport::from(&compare(Some(inputs.0), Some(inputs.1), compiled(cxx)))
}

#[test]
fn situations() {
    let mut wrong = Vec::new();
    for case in CASES {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let before = compile(dir.path(), "a", case.before, case.cxx, case.flags);
        let after = compile(dir.path(), "b", case.after, case.cxx, case.flags);
        let report = report(&before, &after, case.cxx);
        if told(&report) != case.want {
            wrong.push(format!("{}: want {:?}, got {:?}\n    {:?}", case.name, case.want, told(&report), report));
        }
        // Every case is also a case of "nothing changed".
        let again = compile(dir.path(), "c", case.after, case.cxx, case.flags);
        let same = self::report(&after, &again, case.cxx);
        if told(&same) != "same" {
            wrong.push(format!("{}, not changed at all: got {:?}", case.name, told(&same)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

#[test]
fn result_does_not_depend_on_threads() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let unit = |i: usize| {
        let text = |k: usize| {
            format!("int puts(const char*); int f{i}(int x){{return puts(\"{k}\")+x;}} int g{i}(void){{return {i};}}")
        };
        let orig = compile(&dir.path().join(format!("a{i}")), "u", &text(1), false, &[]);
        let fix = compile(&dir.path().join(format!("b{i}")), "u", &text(1 + i % 3), false, &[]);
        Unit {
            source: format!("u{i}.c").into(),
            language: Language::C,
            exceptions: false,
            pristine: None,
            pristine_digest: None,
            orig: Some(orig),
            fix: Some(fix),
            fixed_link_names: Vec::new(),
        }
    };
    let units: Vec<Unit> = (0..9).map(unit).collect();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
        pool.install(|| compare_units(&units).iter().map(|d| format!("{:?}", DiffReport::from(d))).collect::<Vec<_>>())
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(7));
    assert!(one[1].contains("changed: [\"f1\"]") && one[0].contains("Same"), "{one:#?}");
}

#[test]
fn report_has_the_agreed_shape() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let before = compile(dir.path(), "a", "int v=1; int f(void){return v++;} int h;", false, &[]);
    let after = compile(dir.path(), "b", "int v=2; int f(void){return v--;} int g;", false, &[]);
    let report = diff_objects(&before, &after).expect("both files can be read");
    let json = serde_json::to_value(&report).expect("a report is plain data");
    let keys: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["changed", "gone", "new", "refusals", "schema", "verdict"]);
    assert_eq!(json["schema"], 1);
    assert_eq!(json["verdict"], "refused");
    assert_eq!(json["changed"], serde_json::json!(["f"]));
    assert_eq!((&json["new"], &json["gone"]), (&serde_json::json!(["g"]), &serde_json::json!(["h"])));
    let refusal = json["refusals"][0].as_object().expect("an object");
    assert_eq!(refusal.keys().collect::<Vec<_>>(), ["code", "message", "symbol"]);
    assert_eq!((&refusal["code"], &refusal["symbol"]), (&"E-DATA-INIT".into(), &"v".into()));
}

#[test]
fn damaged_and_strange_objects_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let before = compile(dir.path(), "a", "struct s{int a;}; struct s v; int f(void){return v.a;}", false, &[]);
    let whole =
        std::fs::read(compile(dir.path(), "b", "struct s{int a;}; struct s v; int f(void){return v.a+1;}", false, &[]));
    let (old, whole) = (std::fs::read(&before).expect("an object"), whole.expect("an object"));
    let run = |bytes: &[u8]| {
        let inputs = (Input { path: &before, bytes: &old }, Input { path: Path::new("b.o"), bytes });
        told(&DiffReport::from(&compare(Some(inputs.0), Some(inputs.1), compiled(false))))
    };
    assert_eq!(run(&whole), "changed f");
    for len in (0..whole.len()).step_by(13) {
        assert_eq!(run(&whole[..len]), "E-BAD-ELF", "{len}");
    }
    let mut seed = 7u64;
    for _ in 0..3000 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut damaged = whole.clone();
        let at = (seed >> 33) as usize % damaged.len();
        damaged[at] ^= 1 << (seed >> 60 & 7);
        run(&damaged); // any answer will do, a panic will not
    }
    let mut other = whole.clone();
    other[18..20].copy_from_slice(&243u16.to_le_bytes()); // EM_RISCV
    assert_eq!(run(&other), "E-ARCH");
    let plain = compile(dir.path(), "c", "int f(void){return 3;}", false, &["-g0"]);
    assert_eq!(run(&std::fs::read(plain).expect("an object")), "E-UNSUPPORTED");
}

/// A unit that uses what compilers hide values in, and a program that shows what it does.
const SUBJECT: &str = r#"
extern int show(const char *text); int mix(int, int);
static const int weights[] = { 31, 72, 15, 94, 56 };
static const char *const names[] = { "alpha", "bravo", "delta" };
static int add(int a, int b) { return a + b + 61; }
static int sub(int a, int b) { return a - b - 42; }
static int mul(int a, int b) { return a * 53; }
static int (*const steps[])(int, int) = { add, sub, mul };
static int state = 25;
struct pair { int low; double high; };
static const struct pair pairs[] = { { 11, 2.25 }, { 22, 3.75 }, { 33, 4.125 } };
static double scale(double x) { return x * 3.75 + 14.5; }
static __attribute__((noinline)) int pick(int x) { static const char odd[] = "odd!"; return odd[x & 3]; }
int kind(int x) {
    switch (x) {
    case 0: return mix(x, 17);
    case 1: return mix(x + 5, 28);
    case 2: return mix(2, x);
    case 3: return show("three");
    case 4: return mix(x, x) + 3;
    case 5: return show("five");
    }
    return 64;
}
int price(int x) { switch (x) { case 0: return 12; case 1: return 57; case 2: return 33; case 3: return 91; case 4: return 46; } return 83; }
int step(int i, int a, int b) { return steps[i % 3](a, b); }
int weigh(int i) { return weights[i % 5] * 29; }
int name(int i) { return show(names[i % 3]); }
int count(int by) { state += by & 7; return state; }
int local(void) { static int calls = 35; calls += 13; return calls; }
int pairing(int i) { return pairs[i % 3].low + (int)(pairs[i % 3].high * 8.5); }
int image(int i) { int all[24] = { 9, 8, 7, 6, 5, 4, 3, 2, 1, 19, 18, 17, 16, 15 }; all[i + 2] += i; return all[i + 1] + all[i + 3] * 3; }
float thin(float x) { return x < 6.5f ? x * 1.25f : x - 0.75f; }
int scaled(int x) { return (int)scale(x); }
int picked(int x) { return pick(x) ^ 21; }
int looped(int n) { int sum = 0; for (int i = 0; i < n; i++) { sum = sum * 37 + i; if (sum > 4096) { show("over"); sum = sum - 4096; } } return sum; }
"#;

const SHOWER: &str = r#"
#include <stdio.h>
int kind(int), price(int), step(int, int, int), weigh(int), name(int), count(int), local(void), pairing(int), image(int), scaled(int),
    picked(int), looped(int);
float thin(float);
int show(const char *text) { return puts(text); }
int mix(int a, int b) { return a * 1000 + b; }
int main(void) {
    for (int i = 0; i < 9; i++)
        printf("%d %d %d %d %d %d %d %d %d %d %f %d %d %d\n", kind(i), price(i), step(i, i + 3, 8), weigh(i), name(i), count(i), local(),
               pairing(i), image(i), scaled(i), thin(i), picked(i), looped(i * 5), kind(-i));
}
"#;

/// Texts in which one number, letter or operator differs.
fn mutants(text: &str) -> Vec<(usize, String)> {
    let bytes = text.as_bytes();
    let mut quoted = false;
    let mut mutants = Vec::new();
    for (at, byte) in bytes.iter().enumerate().skip(text.find("static").expect("the subject has statics")) {
        quoted ^= *byte == b'"';
        let around = (bytes.get(at.wrapping_sub(1)).copied(), bytes.get(at + 1).copied());
        // Two equal case labels do not compile; labels are swapped below.
        let number_ends = !text[..at].ends_with("case ")
            && byte.is_ascii_digit()
            && !around.1.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'.');
        let replacement = match byte {
            b'0'..=b'9' if number_ends => Some(if *byte == b'9' { b'4' } else { byte + 1 }),
            b'a'..=b'y' if quoted => Some(byte + 1),
            b'+' if around == (Some(b' '), Some(b' ')) => Some(b'-'),
            b'*' if around == (Some(b' '), Some(b' ')) => Some(b'+'),
            b'&' if around == (Some(b' '), Some(b' ')) => Some(b'|'),
            b'<' if around == (Some(b' '), Some(b' ')) => Some(b'>'),
            _ => None,
        };
        if let Some(replacement) = replacement {
            let mut mutant = bytes.to_vec();
            mutant[at] = replacement;
            mutants.push((at, String::from_utf8(mutant).expect("the subject is ASCII")));
        }
    }
    for (old, new) in [
        ("{ add, sub, mul }", "{ add, mul, sub }"),
        ("\"alpha\", \"bravo\"", "\"bravo\", \"alpha\""),
        ("case 4: return mix", "case 6: return mix"),
    ] {
        mutants.push((text.find(old).expect("the subject has this"), text.replacen(old, new, 1)));
    }
    mutants
}

/// No change that shows in what a program does may be called "same". Every third place is tried, a different third for each mode.
#[test]
fn no_mutant_passes_unseen() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let main = compile(dir.path(), "main", SHOWER, false, &[]);
    let behaviour = |unit: &Path| {
        let program = unit.with_extension("program");
        let linked = Command::new("gcc").arg("-no-pie").arg(&main).arg(unit).arg("-o").arg(&program).status();
        assert!(linked.expect("gcc runs").success());
        // A mutant may loop for ever or crash: both are behaviour, and a second is enough to tell.
        let ran = Command::new("timeout").arg("1").arg(&program).output().expect("the program runs");
        (ran.status.code(), ran.stdout)
    };
    for (mode, flags) in [&["-fPIE"][..], &["-O1", "-fno-pie"], &["-O3", "-fPIC"]].into_iter().enumerate() {
        let original = compile(dir.path(), "original", SUBJECT, false, flags);
        let expected = behaviour(&original);
        let mut seen = 0;
        for (at, mutant) in mutants(SUBJECT).into_iter().skip(mode).step_by(3) {
            let mutated = compile(dir.path(), "mutant", &mutant, false, flags);
            let report = report(&original, &mutated, false);
            if told(&report) != "same" {
                seen += 1;
                continue;
            }
            assert_eq!(behaviour(&mutated), expected, "unseen at {at}: {}", &mutant[at.saturating_sub(20)..at + 20]);
        }
        assert!(seen > 30, "{flags:?}: {seen} seen");
    }
}

/// Large units are compared in a moment, and a change in the middle of one is found alone.
#[test]
fn a_large_object() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let text = |changed: usize| {
        let function = |i: usize| {
            let k = if i == changed { 7 } else { 3 };
            format!(
                "int f{i}(int x) {{ static int n{i}; if (x > {i}) u(\"text {i}\", {k}.5 + x); return n{i} += x * {i}; }}\n"
            )
        };
        format!("void u(const char*, double);\n{}", (0..2000).map(function).collect::<String>())
    };
    let before = compile(dir.path(), "a", &text(usize::MAX), false, &["-O1"]);
    let after = compile(dir.path(), "b", &text(1234), false, &["-O1"]);
    let start = std::time::Instant::now();
    let report = report(&before, &after, false);
    let took = start.elapsed();
    assert_eq!(told(&report), "changed f1234");
    // Quadratic work would take minutes; the bound leaves room for an unoptimised build on a busy machine.
    assert!(took.as_secs() < 20, "{took:?}");
    eprintln!("{} bytes compared in {took:?}", std::fs::metadata(&after).expect("it is there").len());
}

/// Thousands of units of which one changed: that one is found, and the others are not even read in depth.
#[test]
fn many_units() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let before = compile(dir.path(), "a", "int f(int x) { return x * 3 + 1; }\n", false, &["-O1"]);
    let after = compile(dir.path(), "b", "int f(int x) { return x * 5 + 1; }\n", false, &["-O1"]);
    let unit = |index: usize| Unit {
        source: format!("{index}.c").into(),
        language: Language::C,
        exceptions: false,
        pristine: None,
        pristine_digest: None,
        orig: Some(before.clone()),
        fix: Some(if index == 3210 { after.clone() } else { before.clone() }),
        fixed_link_names: Vec::new(),
    };
    let units: Vec<Unit> = (0..5000).map(unit).collect();
    let diffs = ulp_build::diff::compare_units(&units);
    let changed = |diff: &ulp_build::diff::UnitDiff| ulp_build::diff::DiffReport::from(diff).changed;
    let found: Vec<(usize, Vec<String>)> =
        diffs.iter().map(changed).enumerate().filter(|(_, names)| !names.is_empty()).collect();
    assert_eq!(found, [(3210, vec!["f".to_owned()])]);
    assert_eq!(diffs.iter().filter(|d| d.fix.is_some()).count(), 1, "an unchanged object was taken apart");
}
