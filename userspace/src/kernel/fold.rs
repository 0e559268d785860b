//! Instructions with known numbers in them.
//!
//! What stands for a field of the kernel is the address of a number, a load of
//! it, a copy of a pointer, a sum and a load. It becomes one load, at an offset:
//! what a C compiler writes where it knows the structure. The places of
//! instructions stay, as jumps and the types of functions are by place: what is
//! no longer needed does nothing, and the verifier removes that.
//!
//! What registers hold is followed within a block, in which each instruction
//! follows the one before it; what is still needed, along all ways.

use std::collections::{BTreeMap, BTreeSet};

use aya_obj::generated::bpf_func_id::{
    BPF_FUNC_get_current_cgroup_id, BPF_FUNC_get_current_pid_tgid, BPF_FUNC_get_current_task_btf,
    BPF_FUNC_get_smp_processor_id, BPF_FUNC_ktime_get_ns,
};

/// An instruction (include/uapi/linux/bpf.h: `struct bpf_insn`).
pub(super) type Instruction = [u8; 8];

/// `BPF_LD | BPF_IMM | BPF_DW`: the first of two.
const WIDE: u8 = 0x18;
/// And the second.
const SECOND: u8 = 0;
/// `BPF_ALU64 | BPF_MOV | BPF_K`, and with `BPF_X`.
const MOVE: u8 = 0xb7;
const COPY: u8 = 0xbf;
/// `BPF_ALU64 | BPF_ADD | BPF_K`, and with `BPF_X`.
const ADD: u8 = 0x07;
const ADD_REGISTER: u8 = 0x0f;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// `BPF_JMP | BPF_JA`; to the next instruction it does nothing.
const JUMP: u8 = 0x05;
const NOTHING: Instruction = [JUMP, 0, 0, 0, 0, 0, 0, 0];
/// `BPF_JMP32 | BPF_JA`: by the immediate number.
const FAR: u8 = 0x06;

/// The instructions of a section.
pub(super) struct Code<'a> {
    pub(super) instructions: Vec<Instruction>,
    /// What is at the address that an instruction gives to its register: it
    /// never changes.
    addresses: BTreeMap<usize, &'a [u8]>,
    /// Instructions that begin a block.
    leaders: BTreeSet<usize>,
    /// Wide ones that give no address any more, but a number.
    pub(super) no_addresses: BTreeSet<usize>,
}

/// What is known of a register.
#[derive(Clone, Copy)]
enum Known<'a> {
    Nothing,
    Address(&'a [u8]),
    Number(u64),
}

impl<'a> Code<'a> {
    /// Of these instructions; `addresses` has what never changes, by the place
    /// of the instruction that has its address.
    pub(super) fn new(
        instructions: Vec<Instruction>,
        addresses: BTreeMap<usize, &'a [u8]>,
    ) -> Self {
        Self {
            leaders: leaders(&instructions),
            instructions,
            addresses,
            no_addresses: BTreeSet::new(),
        }
    }

    /// Puts the numbers in.
    pub(super) fn fold(&mut self) {
        self.put_numbers();
        self.put_offsets();
        self.leave_out();
    }

    /// A number in place of its load, and in place of a register that has it.
    fn put_numbers(&mut self) {
        let mut known = [Known::Nothing; 16];
        let mut at = 0;
        while at < self.instructions.len() {
            if self.leaders.contains(&at) {
                known = [Known::Nothing; 16];
            }
            let one = self.instructions[at];
            let (to, from) = registers(one);
            let mut result = Known::Nothing;
            if one[0] == WIDE {
                if let Some(value) = self.addresses.get(&at) {
                    result = Known::Address(value);
                }
                if let Some(value) = self.read_at_once(at, to, result) {
                    let [low, high] = [value as u32, (value >> 32) as u32];
                    self.instructions[at] = immediate(WIDE, to, low);
                    self.instructions[at + 1] = immediate(0, 0, high);
                    self.instructions[at + 2] = NOTHING;
                    self.no_addresses.insert(at);
                    result = Known::Number(value);
                }
            } else if let Some(value) = loaded(one, known[from]) {
                if let Ok(number) = i32::try_from(value) {
                    self.instructions[at] = immediate(MOVE, to, number.cast_unsigned());
                    result = Known::Number(value);
                }
            } else if one[0] == ADD_REGISTER
                && let Known::Number(value) = known[from]
                && let Ok(number) = i32::try_from(value)
            {
                self.instructions[at] = immediate(ADD, to, number.cast_unsigned());
            }
            let written = written(one);
            for (register, known) in known.iter_mut().enumerate() {
                if written >> register & 1 != 0 {
                    *known = Known::Nothing;
                }
            }
            if !matches!(result, Known::Nothing) {
                known[to] = result;
            }
            at += if one[0] == WIDE { 2 } else { 1 };
        }
    }

    /// What is loaded from an address into the register that has it, directly
    /// after.
    fn read_at_once(&self, at: usize, register: usize, address: Known) -> Option<u64> {
        let load = *self.instructions.get(at + 2)?;
        if self.leaders.contains(&(at + 2)) || registers(load) != (register, register) {
            return None;
        }
        loaded(load, address)
    }

    /// `b = a; b += number; c = *b` becomes `c = *(a + number)`, if nobody needs
    /// `b` after that.
    fn put_offsets(&mut self) {
        for (at, needed) in self.needed().into_iter().enumerate() {
            let load = self.instructions[at];
            let (to, from) = registers(load);
            if width(load).is_none() || (to != from && needed >> from & 1 != 0) {
                continue;
            }
            let Some(sum) = self.before(at, ADD, from) else {
                continue;
            };
            let further = i16::try_from(number(self.instructions[sum])).ok();
            let Some(further) = further.and_then(|further| offset(load).checked_add(further))
            else {
                continue;
            };
            self.instructions[sum] = NOTHING;
            let mut base = from;
            if let Some(copy) = self.before(sum, COPY, from)
                // Else it extends the sign.
                && offset(self.instructions[copy]) == 0
            {
                base = registers(self.instructions[copy]).1;
                self.instructions[copy] = NOTHING;
            }
            let [low, high] = further.to_le_bytes();
            self.instructions[at][1..4].copy_from_slice(&[(base << 4 | to) as u8, low, high]);
        }
    }

    /// The instruction before one of the same block, if it has this code and
    /// writes this register.
    fn before(&self, at: usize, code: u8, register: usize) -> Option<usize> {
        let before = at.checked_sub(1)?;
        let one = self.instructions[before];
        let is = one[0] == code && registers(one).0 == register;
        (is && !self.leaders.contains(&at)).then_some(before)
    }

    /// Numbers and their addresses that nobody needs any more.
    fn leave_out(&mut self) {
        let needed = self.needed();
        for &at in self.addresses.keys() {
            if needed[at + 1] >> registers(self.instructions[at]).0 & 1 == 0 {
                self.instructions[at..at + 2].fill(NOTHING);
                self.no_addresses.insert(at);
            }
        }
    }

    /// Registers that somebody reads after each instruction, a bit for each.
    fn needed(&self) -> Vec<u16> {
        let mut before = vec![0_u16; self.instructions.len() + 1];
        let mut after = vec![0_u16; self.instructions.len()];
        loop {
            let mut changed = false;
            for at in (0..self.instructions.len()).rev() {
                let one = self.instructions[at];
                let jumped = target(at, one).and_then(|to| before.get(to));
                let next = if is_end(one) { 0 } else { before[at + 1] };
                after[at] = next | jumped.copied().unwrap_or_default();
                let needed = after[at] & !written(one) | read(one);
                changed |= needed != before[at];
                before[at] = needed;
            }
            if !changed {
                return after;
            }
        }
    }
}

fn registers(one: Instruction) -> (usize, usize) {
    (usize::from(one[1] & 0xf), usize::from(one[1] >> 4))
}

fn offset(one: Instruction) -> i16 {
    i16::from_le_bytes([one[2], one[3]])
}

fn number(one: Instruction) -> i32 {
    i32::from_le_bytes([one[4], one[5], one[6], one[7]])
}

/// Bytes that a load loads; `None`: it is no load.
fn width(one: Instruction) -> Option<usize> {
    // BPF_LDX | BPF_MEM with BPF_W, BPF_H, BPF_B and BPF_DW.
    match one[0] {
        0x61 => Some(4),
        0x69 => Some(2),
        0x71 => Some(1),
        0x79 => Some(8),
        _ => None,
    }
}

/// What is loaded from a known address.
fn loaded(load: Instruction, from: Known) -> Option<u64> {
    let Known::Address(value) = from else {
        return None;
    };
    let start = usize::try_from(offset(load)).ok()?;
    let value = value.get(start..start + width(load)?)?;
    let mut wide = [0; 8];
    wide[..value.len()].copy_from_slice(value);
    Some(u64::from_le_bytes(wide))
}

/// Registers that an instruction reads, a bit for each.
fn read(one: Instruction) -> u16 {
    let (to, from) = registers(one);
    let (to, from) = (1 << to, 1 << from);
    let from_if_register = if one[0] & 8 == 0 { 0 } else { from };
    let copies = one[0] & 0xf0 == MOVE & 0xf0;
    match (one[0], one[0] & 7) {
        (WIDE | SECOND | JUMP | FAR, _) => 0,
        (CALL, _) if asks_nothing(one) => 0,
        (CALL, _) => ARGUMENTS,
        (EXIT, _) => 1,
        // BPF_LDX
        (_, 1) => from,
        // BPF_ST
        (_, 2) => to,
        // BPF_STX: an atomic one may compare with the first register.
        (_, 3) if is_atomic(one) => 1 | to | from,
        (_, 3) => to | from,
        // BPF_ALU and BPF_ALU64
        (_, 4 | 7) if copies => from_if_register,
        // And jumps.
        (_, 4..) => to | from_if_register,
        // BPF_LD: packets' bytes.
        _ => u16::MAX,
    }
}

/// Registers that an instruction writes, a bit for each; of those that it reads
/// as well, also those that it may write.
fn written(one: Instruction) -> u16 {
    let (to, from) = registers(one);
    match (one[0], one[0] & 7) {
        (SECOND, _) => 0,
        (CALL, _) => 1 | ARGUMENTS,
        // BPF_LDX, BPF_ALU and BPF_ALU64
        (WIDE, _) | (_, 1 | 4 | 7) => 1 << to,
        // BPF_STX: an atomic one may give what was there.
        (_, 3) if is_atomic(one) => 1 | 1 << from,
        // BPF_LD: packets' bytes.
        (_, 0) => 1 | ARGUMENTS,
        // BPF_ST, others of BPF_STX, and jumps
        _ => 0,
    }
}

/// `BPF_STX | BPF_ATOMIC`.
fn is_atomic(one: Instruction) -> bool {
    one[0] & 0xe0 == 0xc0
}

/// Whether a call is one of a helper without arguments: those that are used here.
fn asks_nothing(one: Instruction) -> bool {
    // Else it is a function of the program, or of the kernel.
    let helper = registers(one).1 == 0;
    let without = [
        BPF_FUNC_ktime_get_ns,
        BPF_FUNC_get_smp_processor_id,
        BPF_FUNC_get_current_pid_tgid,
        BPF_FUNC_get_current_cgroup_id,
        BPF_FUNC_get_current_task_btf,
    ];
    let number = number(one).cast_unsigned();
    helper && without.iter().any(|&one| one as u32 == number)
}

/// Registers 1 to 5, which a call takes and leaves as it likes.
const ARGUMENTS: u16 = 0b11_1110;

/// Where an instruction may jump to; to the next if it does nothing.
fn target(at: usize, one: Instruction) -> Option<usize> {
    let by = match one[0] {
        CALL | EXIT => return None,
        FAR => number(one) as isize,
        code if matches!(code & 7, 5 | 6) => isize::from(offset(one)),
        _ => return None,
    };
    (at + 1).checked_add_signed(by)
}

/// Whether the next instruction does not follow.
fn is_end(one: Instruction) -> bool {
    matches!(one[0], EXIT | JUMP | FAR)
}

/// Instructions that others jump to.
fn leaders(instructions: &[Instruction]) -> BTreeSet<usize> {
    let mut leaders = BTreeSet::new();
    let mut at = 0;
    while let Some(&one) = instructions.get(at) {
        leaders.extend(target(at, one));
        if is_end(one) {
            leaders.insert(at + 1);
        }
        at += if one[0] == WIDE { 2 } else { 1 };
    }
    leaders
}

fn immediate(code: u8, register: usize, number: u32) -> Instruction {
    let [a, b, c, d] = number.to_le_bytes();
    [code, register as u8, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests;
