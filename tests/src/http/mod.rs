//! HTTP/1.1 as far as the stand-ins and their tests need it: a server on a thread of its own, and a
//! client that shows every byte.

pub mod client;
pub mod query;
pub mod server;
