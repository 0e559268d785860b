//! TLS seen from outside: who gets in, and what happens when files change.

mod authority;
mod files;
mod handshake;
mod mutual;
