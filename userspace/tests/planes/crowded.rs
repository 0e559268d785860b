//! A table of one entry, which another CPU has at the moment. With all of its
//! 131,072 this cannot be brought about on few CPUs: each of them keeps some
//! hundred entries for itself at the most (kernel/bpf/bpf_lru_list.c,
//! `LOCAL_FREE_TARGET`), and any other makes room.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use aya::{
    EbpfLoader,
    maps::{Map, MapData, PerCpuArray},
    programs::{SchedClassifier, Xdp},
};
use kldtrace::{
    kernel::object::PLANE,
    planes::{
        compile,
        install::{Programs, write},
        pins::Shared,
    },
};
use kldtrace_abi::{
    loss::Loss,
    plane::{Link, count::counters},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{agree::read, kernel::root, packet::Packet, pair::sh, run};

/// Packets of a CPU.
const RUNS: u32 = 300_000;
/// How often that is tried until two CPUs meet.
const TRIES: u32 = 20;

/// The programs with such a table.
struct Crowded {
    folder: tempfile::TempDir,
    ingress: OwnedFd,
    egress: OwnedFd,
}

impl Crowded {
    /// `None`, and a line that says so: needs root and two CPUs.
    fn new() -> Option<Self> {
        if !root() {
            return None;
        }
        if thread::available_parallelism().unwrap().get() < 2 {
            println!("skipped: needs two CPUs");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(sh(&format!("mount -t bpf bpf {}", folder.path().display())));
        let shared = ["PLANE_FLOWS", "LOSSES"].map(|name| Shared {
            name: name.to_owned(),
            path: folder.path().join(name),
        });
        // Whoever loads first makes the maps.
        let mut loader = EbpfLoader::new();
        for Shared { name, path } in &shared {
            loader.map_pin_path(name, path);
        }
        for (name, entries) in [("PLANE_FLOWS", 1), ("PLANE_COUNTS", counters(1))] {
            loader.map_max_entries(name, entries);
        }
        drop(loader.load(PLANE.elf).unwrap());

        let policy = "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nmode = \"enforce\"\n";
        let compiled = compile::image(&read(policy), 1).unwrap();
        let mut programs = Programs::load_sharing(1, Link::Bare, 10, false, &shared).unwrap();
        programs.swap(&write(&compiled.cells).unwrap()).unwrap();
        let program = programs.ebpf.program_mut("plane_egress").unwrap();
        let egress: &mut SchedClassifier = program.try_into().unwrap();
        egress.load().unwrap();
        let egress = egress.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
        let program = programs.ebpf.program_mut("plane_ingress").unwrap();
        let ingress: &mut Xdp = program.try_into().unwrap();
        ingress.load().unwrap();
        let ingress = ingress.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
        Some(Self {
            folder,
            ingress,
            egress,
        })
    }

    /// What was lost so far.
    fn lost(&self, loss: Loss) -> u64 {
        let map = MapData::from_pin(self.folder.path().join("LOSSES")).unwrap();
        let map: PerCpuArray<_, u64> = Map::PerCpuArray(map).try_into().unwrap();
        map.get(&(loss as u32), 0).unwrap().iter().sum()
    }
}

impl Drop for Crowded {
    fn drop(&mut self) {
        sh(&format!("umount {}", self.folder.path().display()));
    }
}

/// Runs a program on packets, each so many times, on a CPU of its own.
fn at_once(program: &OwnedFd, packets: &[Vec<u8>]) {
    thread::scope(|scope| {
        for (cpu, packet) in packets.iter().enumerate() {
            scope.spawn(move || {
                let mut cpus = CpuSet::new();
                cpus.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
                run::xdp(program, packet, RUNS).unwrap();
            });
        }
    });
}

fn udp(from: &str, to: &str, port: u16) -> Vec<u8> {
    let mut packet = Packet::tcp(from.parse().unwrap(), to.parse().unwrap(), port);
    packet.protocol = 17;
    packet.source_port = 7000;
    packet.bytes()
}

#[test]
fn a_flow_that_finds_no_room_is_counted_and_tried_again() {
    let Some(crowded) = Crowded::new() else {
        return;
    };
    let out = ["10.0.0.8", "10.0.0.9"].map(|to| udp("10.0.0.1", to, 7000));
    at_once(&crowded.egress, &out[..1]);
    assert_eq!(crowded.lost(Loss::PlaneFlow), 0);
    let mut tries = 0;
    while crowded.lost(Loss::PlaneFlow) == 0 {
        assert!(tries < TRIES);
        at_once(&crowded.egress, &out);
        tries += 1;
    }
    let lost = crowded.lost(Loss::PlaneFlow);
    println!("{lost} of {} lost", tries * 2 * RUNS);
    assert!(lost < u64::from(tries * 2 * RUNS));
    // include/uapi/linux/bpf.h: XDP_DROP 1, XDP_PASS 2.
    for (number, peer) in ["10.0.0.8", "10.0.0.9"].into_iter().enumerate() {
        run::xdp(&crowded.egress, &out[number], 1).unwrap();
        let answer = udp(peer, "10.0.0.1", 7000);
        assert_eq!(run::xdp(&crowded.ingress, &answer, 1).unwrap().0, 2);
        let other = udp("10.0.0.7", "10.0.0.1", 7000);
        assert_eq!(run::xdp(&crowded.ingress, &other, 1).unwrap().0, 1);
    }
}
