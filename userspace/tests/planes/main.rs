//! The planes' filters: what a policy makes of packets, against a reference,
//! against a corpus, and in the kernel.

mod agree;
mod apply;
mod beside;
mod corpus;
mod cost;
mod crowded;
mod daemon;
mod drops;
mod example;
mod flows;
mod forged;
mod full;
mod guard;
mod hostile;
mod kernel;
mod large;
mod memo;
mod nft;
mod packet;
mod pair;
mod random;
mod rates;
mod reference;
mod run;
mod shown;
mod spoof;
mod traffic;
mod veth;
