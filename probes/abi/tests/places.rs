//! Where objects lie in the tables of what is remembered of them.

use kldtrace_abi::places::own_set;

/// Objects lie as far from each other as their memory is large, many of them in
/// a row. However many sets there are, none gets many more than another.
#[test]
fn objects_are_spread_over_all_sets() {
    for sets in [16_u64, 1000, 65_536] {
        for apart in [2368, 2432, 4096] {
            let mut count = vec![0; usize::try_from(sets).unwrap()];
            for number in 0..sets * 8 {
                let set = own_set(0xffff_8881_0000_0000 + number * apart, sets);
                count[set as usize] += 1;
            }
            let most = count.iter().max().unwrap();
            assert!(*most <= 16, "{most} of {sets} sets, {apart} apart");
        }
    }
}
