// SPDX-License-Identifier: GPL-2.0-or-later
//! What a build leaves behind: records of calls, their argument lists, dependency files and link maps, from a stranger.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ulp_build::capture::{Call, args};
use ulp_build::linkmap::LinkMap;

fuzz_target!(|data: &[u8]| {
    if let Ok(call) = serde_json::from_slice::<Call>(data) {
        arguments(&call.args);
        let again = serde_json::to_vec(&call).expect("what was read can be written");
        let again: Call = serde_json::from_slice(&again).expect("what was written can be read");
        assert_eq!(format!("{call:?}"), format!("{again:?}"));
    }
    let text = String::from_utf8_lossy(data);
    arguments(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    let _ = args::prerequisites(&text);
    if let Ok(mut map) = LinkMap::parse(&text) {
        let partial = map.clone();
        map.take_in("a.o", &partial);
        let _ = map.moved(|addr| (addr.0 % 3 != 0).then(|| addr.plus(16))).fate("a.o", ".text", &[1, 2], 1);
    }
});

fn arguments(words: &[String]) {
    let _ = (args::of_cc1(words), args::of_as(words), args::of_ld(words), args::dependencies(words));
    let _ = (args::without_dependencies(words), args::preprocesses_only(words), args::debug_info(words));
    let _ = args::link_time_optimised(words);
}
