//! Empty: it lets cargo track this crate as a dependency. The programs are in `main.rs`.
#![no_std]
