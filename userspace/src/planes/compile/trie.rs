//! Builds the tries that [`kldtrace_abi::plane::address`] walks.

use kldtrace_abi::plane::address::{JUMP, NODE, Node as Packed, ROOT_BITS, STEP};

use crate::planes::policy::Prefix;

/// What lies at and below a slot.
enum Slot {
    Leaf(u32),
    Node(Box<Node>),
}

/// A node before it is laid out.
#[derive(Default)]
struct Node {
    inner: u64,
    runs: u64,
    nodes: Vec<Self>,
    leaves: Vec<u32>,
    /// Bits jumped over, and what they must be.
    jump: (u32, u64),
    /// The leaf where they are not.
    other: u32,
}

/// All tries of an image: they share nodes and leaves.
#[derive(Default)]
pub struct Tries {
    /// The roots, one behind the other.
    pub roots: Vec<u32>,
    /// Nodes; number 0 is none.
    pub nodes: Vec<Packed>,
    /// Leaves; number 0 is none.
    pub leaves: Vec<u32>,
}

impl Tries {
    /// None yet.
    pub fn new() -> Self {
        Self {
            roots: Vec::new(),
            nodes: vec![Packed::default()],
            leaves: vec![0],
        }
    }

    /// Adds a trie of prefixes of one family, in ascending order and each
    /// once, with their leaves. What is in none has leaf 0.
    pub fn add(&mut self, entries: &[(Prefix, u32)]) {
        for slot in slots(entries, 0, ROOT_BITS, 0) {
            let entry = match slot {
                Slot::Leaf(leaf) => leaf,
                Slot::Node(node) => {
                    let number = self.nodes.len();
                    self.nodes.push(Packed::default());
                    self.lay_out(number, *node);
                    NODE | number as u32
                }
            };
            self.roots.push(entry);
        }
    }

    /// Writes a node to its place, and those below it behind all others.
    fn lay_out(&mut self, number: usize, node: Node) {
        let first = self.nodes.len();
        let below = node.nodes.len();
        self.nodes.resize_with(first + below, Packed::default);
        let leaves = if node.jump.0 == 0 {
            self.leaves.len() - 1
        } else {
            self.leaves.push(node.other);
            self.leaves.len() - 1
        };
        self.leaves.extend(&node.leaves);
        self.nodes[number] = Packed {
            inner: node.inner,
            runs: node.runs,
            nodes: (first - 1) as u32,
            leaves: leaves as u32,
            jump: node.jump.1 << 6 | u64::from(node.jump.0),
        };
        for (place, child) in node.nodes.into_iter().enumerate() {
            self.lay_out(first + place, child);
        }
    }
}

/// The `bits` bits behind the first `depth`, as a number.
fn bits_at(prefix: Prefix, depth: u32, bits: u32) -> usize {
    (prefix.bits << depth >> (128 - bits)) as usize
}

/// The slots of a node `depth` bits down that is indexed by `width` bits.
/// `inherited` is the leaf of what no entry covers.
fn slots(entries: &[(Prefix, u32)], depth: u32, width: u32, inherited: u32) -> Vec<Slot> {
    let mut leaves = vec![inherited; 1 << width];
    // In ascending order a prefix stands before those within it: what is
    // written last is the most specific. Those that reach below this node
    // stand together for each slot.
    let mut deeper: Vec<(usize, usize)> = vec![(0, 0); 1 << width];
    for (place, (prefix, leaf)) in entries.iter().enumerate() {
        let slot = bits_at(*prefix, depth, width);
        let length = u32::from(prefix.length);
        if length > depth + width {
            let (start, end) = &mut deeper[slot];
            if *end == 0 {
                *start = place;
            }
            *end = place + 1;
        } else {
            let span = 1_usize << (depth + width - length);
            leaves[slot..slot + span].fill(*leaf);
        }
    }
    let both = leaves.into_iter().zip(deeper);
    both.map(|(leaf, (start, end))| {
        if start == end {
            return Slot::Leaf(leaf);
        }
        node(&entries[start..end], depth + width, leaf)
    })
    .collect()
}

/// The node `depth` bits down; a leaf if all below it has the same.
fn node(entries: &[(Prefix, u32)], depth: u32, inherited: u32) -> Slot {
    let mut node = Node::default();
    let mut only = 0;
    for (slot, below) in slots(entries, depth, STEP, inherited)
        .into_iter()
        .enumerate()
    {
        match below {
            Slot::Leaf(leaf) => {
                if node.leaves.last() != Some(&leaf) {
                    node.runs |= 1 << slot;
                    node.leaves.push(leaf);
                }
            }
            Slot::Node(child) => {
                node.inner |= 1 << slot;
                node.nodes.push(*child);
                only = slot as u64;
            }
        }
    }
    match (&node.leaves[..], &node.nodes[..]) {
        ([leaf], []) => return Slot::Leaf(*leaf),
        // A way without branches is jumped over.
        ([leaf], [child])
            if child.jump.0 + STEP <= JUMP && (child.jump.0 == 0 || child.other == *leaf) =>
        {
            let other = *leaf;
            let mut child = node.nodes.remove(0);
            let (bits, value) = child.jump;
            child.jump = (bits + STEP, only << bits | value);
            child.other = other;
            return Slot::Node(Box::new(child));
        }
        _ => {}
    }
    Slot::Node(Box::new(node))
}
