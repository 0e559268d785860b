//! Maps read many entries at once, which aya has no word for.

use std::io;

use aya::{Pod, maps::MapData};
use aya_obj::generated::bpf_cmd;

use super::sys::{bpf, raw, zeroed};

/// Entries that are read at once, at most: more than any bucket of a hash map
/// has, which the kernel gives out as a whole.
const ENTRIES: usize = 4096;
/// Bytes of values that are read at once, about.
const BYTES: usize = 1 << 16;

/// Walks over a map, at most so many entries (`BPF_MAP_LOOKUP_BATCH`: of hash maps
/// since 5.6, of arrays of each CPU since 5.13). `key` is the size of its keys; a
/// value is `parts` of `V`, as each CPU has one.
///
/// # Errors
/// What the kernel says.
pub fn walk<V: Pod>(
    map: &MapData,
    key: usize,
    parts: usize,
    most: u32,
    mut each: impl FnMut(&[V]),
) -> io::Result<()> {
    let entries = (BYTES / (size_of::<V>() * parts)).clamp(1, ENTRIES);
    let mut keys = vec![0_u8; key * entries];
    // SAFETY: any bytes are a value of a type that is `Pod`.
    let nothing: V = unsafe { std::mem::zeroed() };
    let mut values = vec![nothing; parts * entries];
    // Where it goes on: a number of a bucket, or a key of an array.
    let (mut from, mut to) = (0_u32, 0_u32);
    let mut left = most;
    let mut begun = false;
    while left > 0 {
        let mut attr = zeroed();
        attr.batch.map_fd = raw(map.fd());
        attr.batch.in_batch = if begun { &raw const from as u64 } else { 0 };
        attr.batch.out_batch = &raw mut to as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = entries as u32;
        // A batch has room for its keys and values, whose sizes are the map's.
        let error = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr).err();
        let ended = error.as_ref().and_then(io::Error::raw_os_error) == Some(libc::ENOENT);
        if let Some(error) = error.filter(|_| !ended) {
            return Err(error);
        }
        // SAFETY: an integer that the kernel wrote.
        let count = unsafe { attr.batch.count };
        values
            .chunks_exact(parts)
            .take(count as usize)
            .for_each(&mut each);
        if ended {
            return Ok(());
        }
        left = left.saturating_sub(count.max(1));
        from = to;
        begun = true;
    }
    Ok(())
}
