//! The types that the eBPF programs and the agent exchange through maps.
//!
//! Both sides are built from this one file, so a layout cannot drift. Everything is in host byte
//! order unless a field says otherwise.
#![no_std]
#![expect(unsafe_code, reason = "aya::Pod vouches for plain-old-data layouts")]
