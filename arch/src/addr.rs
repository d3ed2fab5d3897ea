// SPDX-License-Identifier: GPL-2.0-or-later
//! Addresses with types: where something stands in a file and where it stands in a process
//! are different things, and only a load bias turns one into the other.

use core::fmt;
use serde::{Deserialize, Serialize};

/// An address as the linker assigned it: the `p_vaddr`/`st_value` space of one ELF file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkAddr(pub u64);

/// An address in the memory of a running process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RemoteAddr(pub u64);

/// What the loader added to every link address of one ELF file; 0 for a fixed-address executable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoadBias(pub u64);

impl LoadBias {
    /// Where a link address is found in the process. Wraps, as the dynamic loader's own addition does.
    pub fn remote(self, addr: LinkAddr) -> RemoteAddr {
        RemoteAddr(self.0.wrapping_add(addr.0))
    }

    /// Which link address a process address came from.
    pub fn link(self, addr: RemoteAddr) -> LinkAddr {
        LinkAddr(addr.0.wrapping_sub(self.0))
    }
}

macro_rules! address {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}
address!(LinkAddr);
address!(RemoteAddr);
address!(LoadBias);

macro_rules! offset {
    ($name:ident) => {
        impl $name {
            /// This address plus `bytes`; wraps at the end of the address space.
            pub fn plus(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
        }
    };
}
offset!(LinkAddr);
offset!(RemoteAddr);
